#include "server/rpc/wire.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/unknown_field_set.h>
#include <grpcpp/support/slice.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/rpc/errors.h"

namespace pkv {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

// Length of the UTF-8 sequence at `text[i]`; 0: there is none (RFC 3629: no overlong forms, no surrogates).
size_t sequence_length(const std::string& text, size_t i) {
  const auto at = [&](size_t k) { return k < text.size() ? static_cast<unsigned char>(text[k]) : 0u; };
  const auto continues = [&](size_t k) { return (at(k) & 0xC0u) == 0x80u; };
  const unsigned lead = at(i), second = at(i + 1);
  if (lead < 0x80) return 1;
  if (lead >= 0xC2 && lead <= 0xDF) return continues(i + 1) ? 2 : 0;
  if (lead >= 0xE0 && lead <= 0xEF) {
    const bool excluded = (lead == 0xE0 && second < 0xA0) || (lead == 0xED && second >= 0xA0);
    return !excluded && continues(i + 1) && continues(i + 2) ? 3 : 0;
  }
  if (lead >= 0xF0 && lead <= 0xF4) {
    const bool excluded = (lead == 0xF0 && second < 0x90) || (lead == 0xF4 && second >= 0x90);
    return !excluded && continues(i + 1) && continues(i + 2) && continues(i + 3) ? 4 : 0;
  }
  return 0;
}

bool is_utf8(const std::string& text) {
  for (size_t i = 0; i < text.size();) {
    const size_t length = sequence_length(text, i);
    if (length == 0) return false;
    i += length;
  }
  return true;
}

std::string find_bad_text(const Message& message, const std::string& prefix);

std::string find_bad_text_in(const Message& message, const FieldDescriptor& field, int index, const std::string& path) {
  const Reflection& reflection = *message.GetReflection();
  const bool repeated = index >= 0;
  if (field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
    return find_bad_text(
        repeated ? reflection.GetRepeatedMessage(message, &field, index) : reflection.GetMessage(message, &field),
        path + ".");
  }
  if (field.type() != FieldDescriptor::TYPE_STRING) return {};
  const std::string text =
      repeated ? reflection.GetRepeatedString(message, &field, index) : reflection.GetString(message, &field);
  return is_utf8(text) ? std::string() : path;
}

// Path of the first text below `message` that is not valid UTF-8; empty: none.
std::string find_bad_text(const Message& message, const std::string& prefix) {
  std::vector<const FieldDescriptor*> fields;
  message.GetReflection()->ListFields(message, &fields);
  for (const FieldDescriptor* field : fields) {
    const std::string path = prefix + field->name();
    if (!field->is_repeated()) {
      if (std::string found = find_bad_text_in(message, *field, -1, path); !found.empty()) return found;
      continue;
    }
    if (field->is_map()) continue;  // no map of the contract's requests holds text
    for (int i = 0; i < message.GetReflection()->FieldSize(message, field); ++i) {
      if (std::string found = find_bad_text_in(message, *field, i, absl::StrCat(path, "[", i, "]")); !found.empty())
        return found;
    }
  }
  return {};
}

}  // namespace

absl::Status parse_message(const grpc::ByteBuffer& buffer, Message& message) {
  grpc::Slice slice;
  if (const grpc::Status status = buffer.DumpToSingleSlice(&slice); !status.ok()) {
    return make_error({.reason = kBadInput, .description = "the request could not be read"});
  }
  if (message.ParseFromArray(slice.begin(), static_cast<int>(slice.size()))) return absl::OkStatus();
  // What was parsed before the failure is still in the message, the offending text included.
  if (const std::string field = find_bad_text(message, ""); !field.empty())
    return bad_input(field, "is not valid UTF-8");
  return make_error(
      {.reason = kBadInput, .description = absl::StrCat("the request is no valid ", message.GetTypeName())});
}

grpc::ByteBuffer serialize_message(const Message& message) {
  const size_t size = message.ByteSizeLong();
  grpc::Slice slice(size);
  message.SerializeWithCachedSizesToArray(const_cast<uint8_t*>(slice.begin()));
  return grpc::ByteBuffer(&slice, 1);
}

}  // namespace pkv
