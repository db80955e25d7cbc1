#include "server/api/preset_message.h"

#include <google/protobuf/descriptor.h>

#include <algorithm>
#include <limits>
#include <optional>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "kernels/status_macros.h"
#include "server/config/config_values.h"
#include "server/policy/registry.h"

namespace pkv {
namespace {

namespace pb = ::pyramidkv::v1;
using google::protobuf::EnumDescriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

// POOLING_ of Pooling, whose first enumerator is POOLING_UNSPECIFIED.
std::string enum_prefix(const EnumDescriptor& type) {
  const std::string& first = type.value(0)->name();
  return first.substr(0, first.rfind('_') + 1);
}

std::string enum_words(const EnumDescriptor& type) {
  std::vector<std::string> words;
  for (int i = 1; i < type.value_count(); ++i) {
    words.push_back(absl::AsciiStrToLower(type.value(i)->name().substr(enum_prefix(type).size())));
  }
  return absl::StrJoin(words, ", ");
}

bool is_bytes(const FieldDescriptor& field) { return field.name().ends_with("bytes"); }

// What a value of the field is, for people.
std::string range(const FieldDescriptor& field) {
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return "a number";
    case FieldDescriptor::CPPTYPE_BOOL:
      return "true or false";
    case FieldDescriptor::CPPTYPE_ENUM:
      return "one of " + enum_words(*field.enum_type());
    default:
      return is_bytes(field) ? "bytes, with or without a unit (4MiB)" : "a whole number";
  }
}

bool set_enum(const FieldDescriptor& field, const std::string& text, Message& out) {
  const EnumDescriptor& type = *field.enum_type();
  const auto* value = type.FindValueByName(enum_prefix(type) + absl::AsciiStrToUpper(text));
  if (value == nullptr || value->number() == 0) return false;
  out.GetReflection()->SetEnum(&out, &field, value);
  return true;
}

// False where `text` is no value of the field.
bool set_field(const FieldDescriptor& field, const std::string& text, Message& out) {
  const auto* reflection = out.GetReflection();
  const std::optional<int64_t> whole = parse_integer(text);
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_UINT32:
      if (!whole || *whole < 0 || *whole > std::numeric_limits<uint32_t>::max()) return false;
      reflection->SetUInt32(&out, &field, static_cast<uint32_t>(*whole));
      return true;
    case FieldDescriptor::CPPTYPE_UINT64: {
      const std::optional<uint64_t> bytes = is_bytes(field) ? parse_bytes(text) : std::nullopt;
      if (!bytes && (is_bytes(field) || !whole || *whole < 0)) return false;
      reflection->SetUInt64(&out, &field, bytes ? *bytes : static_cast<uint64_t>(*whole));
      return true;
    }
    case FieldDescriptor::CPPTYPE_DOUBLE:
      if (const std::optional<double> real = parse_real(text)) {
        reflection->SetDouble(&out, &field, *real);
        return true;
      }
      return false;
    case FieldDescriptor::CPPTYPE_BOOL:
      if (const std::optional<bool> boolean = parse_boolean(text)) {
        reflection->SetBool(&out, &field, *boolean);
        return true;
      }
      return false;
    case FieldDescriptor::CPPTYPE_ENUM:
      return set_enum(field, text, out);
    default:
      return false;
  }
}

absl::Status apply(const PolicyPreset& preset, const PresetSetting& setting, Message& policy, pb::CachePolicy& out) {
  const auto refuse = [&](const std::string& description) { return preset_error(preset, setting.key, description); };
  Message* owner = &policy;
  const FieldDescriptor* field = owner->GetDescriptor()->FindFieldByName(setting.key);
  if (field == nullptr && (setting.key == "kv_dtype" || setting.key == "prefill" || setting.key == "prefill_tokens")) {
    owner = &out;
    field = owner->GetDescriptor()->FindFieldByName(setting.key);
  }
  if (field == nullptr) {
    owner = out.mutable_budget();
    field = owner->GetDescriptor()->FindFieldByName(setting.key);
  }
  if (field == nullptr) return refuse("unknown key");
  if (field->real_containing_oneof() != nullptr) {
    const FieldDescriptor* other =
        owner->GetReflection()->GetOneofFieldDescriptor(*owner, field->real_containing_oneof());
    if (other != nullptr)
      return refuse(absl::StrCat("a preset has one budget, and ", other->name(), " is given as well"));
  }
  if (!set_field(*field, setting.value, *owner)) {
    return refuse(absl::StrCat("must be ", range(*field), ", not \"", setting.value, "\""));
  }
  return absl::OkStatus();
}

const PresetSetting* find_setting(const PolicyPreset& preset, const std::string& key) {
  const auto found = std::find_if(preset.settings.begin(), preset.settings.end(),
                                  [&](const PresetSetting& setting) { return setting.key == key; });
  return found == preset.settings.end() ? nullptr : &*found;
}

}  // namespace

absl::Status preset_error(const PolicyPreset& preset, const std::string& key, const std::string& description) {
  const PresetSetting* setting = find_setting(preset, key);
  return absl::InvalidArgumentError(absl::StrCat(setting == nullptr ? preset.where : setting->where,
                                                 ": policies.presets.", preset.name, key.empty() ? "" : ".", key, ": ",
                                                 description));
}

absl::StatusOr<pb::CachePolicy> preset_message(const PolicyPreset& preset) {
  const PresetSetting* name = find_setting(preset, "policy");
  if (name == nullptr) return preset_error(preset, "policy", "is missing");
  if (find_policy(name->value) == nullptr) {
    return preset_error(preset, "policy",
                        absl::StrCat("\"", name->value, "\" is no policy; there are ", policy_names()));
  }
  pb::CachePolicy message;
  Message& policy =
      *message.GetReflection()->MutableMessage(&message, message.GetDescriptor()->FindFieldByName(name->value));
  for (const PresetSetting& setting : preset.settings) {
    if (&setting == name) continue;
    PKV_RETURN_IF_ERROR(apply(preset, setting, policy, message));
  }
  return message;
}

}  // namespace pkv
