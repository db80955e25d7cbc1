#include "server/config/presets.h"

#include <algorithm>
#include <array>
#include <limits>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/config/config_values.h"

namespace pkv {
namespace {

bool set_whole(const std::string& text, std::optional<int32_t>& out) {
  const std::optional<int64_t> value = parse_integer(text);
  if (!value || *value < 0 || *value > std::numeric_limits<int32_t>::max()) return false;
  out = static_cast<int32_t>(*value);
  return true;
}

bool set_real(const std::string& text, std::optional<double>& out) {
  out = parse_real(text);
  return out.has_value();
}

bool set_text(const std::string& text, std::optional<std::string>& out) {
  out = text;
  return !text.empty();
}

// One key of a preset; `set` is false where the text is no such value.
struct PresetKey {
  std::string_view name;
  bool (*set)(const std::string& text, PolicyPreset& preset);
  std::string_view range;
};

constexpr std::string_view kWhole = "a whole number", kNumber = "a number", kWord = "a name";

constexpr std::array kPresetKeys = std::to_array<PresetKey>({
    {"policy",
     [](const std::string& t, PolicyPreset& p) {
       p.policy = t;
       return !t.empty();
     },
     kWord},
    {"tokens", [](const std::string& t, PolicyPreset& p) { return set_whole(t, p.tokens); }, kWhole},
    {"keep_ratio", [](const std::string& t, PolicyPreset& p) { return set_real(t, p.keep_ratio); }, kNumber},
    {"window_tokens", [](const std::string& t, PolicyPreset& p) { return set_whole(t, p.window_tokens); }, kWhole},
    {"kernel_size", [](const std::string& t, PolicyPreset& p) { return set_whole(t, p.kernel_size); }, kWhole},
    {"pooling", [](const std::string& t, PolicyPreset& p) { return set_text(t, p.pooling); }, kWord},
    {"group_aggregation", [](const std::string& t, PolicyPreset& p) { return set_text(t, p.group_aggregation); },
     kWord},
    {"beta", [](const std::string& t, PolicyPreset& p) { return set_real(t, p.beta); }, kNumber},
    {"allocation", [](const std::string& t, PolicyPreset& p) { return set_text(t, p.allocation); }, kWord},
    {"kv_dtype", [](const std::string& t, PolicyPreset& p) { return set_text(t, p.kv_dtype); }, kWord},
});

constexpr auto kPresetKeyNames = [] {
  std::array<std::string_view, kPresetKeys.size()> names;
  for (size_t i = 0; i < names.size(); ++i) names[i] = kPresetKeys[i].name;
  return names;
}();

absl::StatusOr<PolicyPreset> parse_preset(const std::string& name, const ConfigNode& node) {
  const std::string path = absl::StrCat("policies.presets.", name);
  if (!node.is_mapping) {
    return absl::InvalidArgumentError(absl::StrCat(node.where, ": ", path, ": must be a mapping with at least policy"));
  }
  PolicyPreset preset;
  preset.name = name;
  preset.where = node.where;
  for (const auto& [key, value] : node.entries) {
    const auto row =
        std::find_if(kPresetKeys.begin(), kPresetKeys.end(), [&](const PresetKey& k) { return k.name == key; });
    const std::string full = absl::StrCat(value.where, ": ", path, ".", key);
    if (row == kPresetKeys.end()) return absl::InvalidArgumentError(absl::StrCat(full, ": unknown key"));
    if (value.is_mapping || !row->set(value.scalar, preset)) {
      return absl::InvalidArgumentError(
          absl::StrCat(full, ": must be ", std::string(row->range), ", not \"", value.scalar, "\""));
    }
  }
  if (preset.policy.empty())
    return absl::InvalidArgumentError(absl::StrCat(node.where, ": ", path, ".policy: is missing"));
  return preset;
}

}  // namespace

std::span<const std::string_view> preset_keys() { return kPresetKeyNames; }

absl::Status parse_presets(const ConfigNode& node, std::vector<PolicyPreset>& presets) {
  std::vector<PolicyPreset> parsed;
  for (const auto& [name, value] : node.entries) {
    absl::StatusOr<PolicyPreset> preset = parse_preset(name, value);
    if (!preset.ok()) return preset.status();
    parsed.push_back(*std::move(preset));
  }
  presets = std::move(parsed);
  return absl::OkStatus();
}

}  // namespace pkv
