// A parsed YAML value without yaml-cpp in it: a scalar or a mapping, each with the place it came from.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace pkv {

struct ConfigEntry;

struct ConfigNode {
  std::string where;  // "server.yaml:12" or "--set"
  bool is_mapping = false;
  std::string scalar;                // of a scalar; empty where the file gives no value
  std::vector<ConfigEntry> entries;  // of a mapping, in the file's order
};

struct ConfigEntry {
  std::string name;
  ConfigNode value;
};

// INVALID_ARGUMENT with file and line for text that is not YAML, a list, a repeated key, or nesting beyond any real
// file. An empty text is an empty mapping.
absl::StatusOr<ConfigNode> parse_yaml(const std::string& text, const std::string& name);

}  // namespace pkv
