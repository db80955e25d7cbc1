#include "server/config/environment.h"

#include <algorithm>
#include <string_view>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"

namespace pkv {
namespace {

constexpr std::string_view kPrefix = "PYRAMIDKV_";
constexpr char kDot[] = "__";

absl::Status unknown_variable(const std::string& name, const ConfigKey* meant) {
  return absl::InvalidArgumentError(
      absl::StrCat(name, ": no such variable: ",
                   meant == nullptr ? "keys are PYRAMIDKV_SECTION__KEY, see --help"
                                    : absl::StrCat(variable_name(*meant), " sets ", std::string(meant->name))));
}

// The key whose variable is `name`, or the one that it would be with a single underscore for the dot.
const ConfigKey* find_key(std::string_view name, const char* dot) {
  const auto keys = config_keys();
  const auto found = std::find_if(keys.begin(), keys.end(), [&](const ConfigKey& key) {
    return name == absl::StrReplaceAll(variable_name(key), {{kDot, dot}});
  });
  return found == keys.end() ? nullptr : &*found;
}

}  // namespace

std::string variable_name(const ConfigKey& key) {
  return absl::StrCat(std::string(kPrefix),
                      absl::AsciiStrToUpper(absl::StrReplaceAll(std::string(key.name), {{".", kDot}})));
}

absl::StatusOr<std::vector<Variable>> config_variables(const std::vector<std::string>& environment) {
  std::vector<Variable> variables;
  for (const std::string& entry : environment) {
    if (!entry.starts_with(kPrefix)) continue;
    const size_t equals = std::min(entry.find('='), entry.size());
    const std::string name = entry.substr(0, equals);
    if (const ConfigKey* key = find_key(name, kDot)) {
      variables.push_back({.name = name, .value = entry.substr(std::min(equals + 1, entry.size())), .key = key});
    } else if (const ConfigKey* meant = find_key(name, "_")) {
      return unknown_variable(name, meant);
    } else if (const size_t dot = name.find(kDot, kPrefix.size()); dot != std::string::npos && dot > kPrefix.size()) {
      const std::string key_name = absl::StrReplaceAll(name.substr(kPrefix.size()), {{kDot, "."}});
      return unknown_variable(name, nearest_config_key(absl::AsciiStrToLower(key_name)));
    }
  }
  return variables;
}

}  // namespace pkv
