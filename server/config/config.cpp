#include "server/config/config.h"

#include <fstream>
#include <map>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "server/config/config_keys.h"
#include "server/config/config_node.h"

namespace pkv {
namespace {

bool is_section(const std::string& path) {
  for (const ConfigKey& key : config_keys()) {
    if (key.name.size() > path.size() && key.name.starts_with(path) && key.name[path.size()] == '.') return true;
  }
  return false;
}

// Applies everything below `node`, whose key is `path` (empty: the whole file).
absl::Status apply(const ConfigNode& node, const std::string& path, Config& config) {
  if (const ConfigKey* key = find_config_key(path)) return key->parse(node, config);
  if (!path.empty() && !is_section(path)) {
    return absl::InvalidArgumentError(absl::StrCat(node.where, ": ", path, ": unknown key"));
  }
  if (!node.is_mapping && !node.scalar.empty()) {
    const std::string name = path.empty() ? "a configuration" : path;
    return absl::InvalidArgumentError(absl::StrCat(node.where, ": ", name, ": must be a mapping of keys"));
  }
  for (const auto& [name, child] : node.entries) {
    const std::string full = path.empty() ? name : absl::StrCat(path, ".", name);
    if (absl::Status status = apply(child, full, config); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status assign(const std::string& assignment, Config& config) {
  const size_t equals = assignment.find('=');
  if (equals == std::string::npos) {
    return absl::InvalidArgumentError(absl::StrCat("--set ", assignment, ": must be key=value"));
  }
  const std::string name = assignment.substr(0, equals);
  const std::string value = assignment.substr(equals + 1);
  const ConfigKey* key = find_config_key(name);
  if (key == nullptr) return absl::InvalidArgumentError(absl::StrCat("--set: ", name, ": unknown key"));
  ConfigNode node;
  node.scalar = value;
  if (std::holds_alternative<PresetsKey>(key->type)) {
    absl::StatusOr<ConfigNode> mapping = parse_yaml(value, "--set");
    if (!mapping.ok()) return mapping.status();
    node = *std::move(mapping);
  }
  node.where = "--set";
  return key->parse(node, config);
}

absl::StatusOr<std::string> read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  if (!file || !(text << file.rdbuf())) {
    // An empty file also fails the stream operator: nothing was inserted.
    if (file.is_open() && file.peek() == std::ifstream::traits_type::eof()) return std::string();
    return absl::NotFoundError(absl::StrCat(path, ": cannot be read"));
  }
  return text.str();
}

}  // namespace

absl::StatusOr<Config> parse_config(const std::string& text, const std::string& name,
                                    const std::vector<std::string>& assignments) {
  absl::StatusOr<ConfigNode> root = parse_yaml(text, name);
  if (!root.ok()) return root.status();
  Config config;
  if (absl::Status status = apply(*root, "", config); !status.ok()) return status;
  for (const std::string& assignment : assignments) {
    if (absl::Status status = assign(assignment, config); !status.ok()) return status;
  }
  return config;
}

absl::StatusOr<Config> load_config(const std::string& path, const std::vector<std::string>& assignments) {
  if (path.empty()) return parse_config("", "", assignments);
  absl::StatusOr<std::string> text = read_file(path);
  if (!text.ok()) return text.status();
  return parse_config(*text, path, assignments);
}

}  // namespace pkv
