// The only file that knows yaml-cpp.
#include "server/config/config_node.h"

#include <yaml-cpp/yaml.h>

#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/status_macros.h"

namespace pkv {
namespace {

// Deeper than any configuration is, and an end to an alias that contains itself.
constexpr int kMaxDepth = 8;

std::string place(const YAML::Mark& mark, const std::string& name) {
  return mark.line < 0 ? name : absl::StrCat(name, ":", mark.line + 1);
}

absl::StatusOr<ConfigNode> convert(const YAML::Node& yaml, const std::string& name, int depth);

absl::Status convert_entries(const YAML::Node& yaml, const std::string& name, int depth, ConfigNode& node) {
  std::set<std::string> seen;
  for (const auto& entry : yaml) {
    const std::string where = place(entry.first.Mark(), name);
    if (!entry.first.IsScalar()) return absl::InvalidArgumentError(absl::StrCat(where, ": a key must be plain text"));
    const std::string key = entry.first.Scalar();
    if (!seen.insert(key).second) return absl::InvalidArgumentError(absl::StrCat(where, ": ", key, ": given twice"));
    PKV_ASSIGN_OR_RETURN(ConfigNode value, convert(entry.second, name, depth + 1));
    value.where = where;
    node.entries.push_back({key, std::move(value)});
  }
  return absl::OkStatus();
}

absl::StatusOr<ConfigNode> convert(const YAML::Node& yaml, const std::string& name, int depth) {
  ConfigNode node;
  node.where = place(yaml.Mark(), name);
  if (depth > kMaxDepth) return absl::InvalidArgumentError(absl::StrCat(node.where, ": nested too deeply"));
  switch (yaml.Type()) {
    case YAML::NodeType::Undefined:
    case YAML::NodeType::Null:
      return node;
    case YAML::NodeType::Scalar:
      node.scalar = yaml.Scalar();
      return node;
    case YAML::NodeType::Sequence:
      return absl::InvalidArgumentError(absl::StrCat(node.where, ": no key takes a list"));
    case YAML::NodeType::Map:
      node.is_mapping = true;
      PKV_RETURN_IF_ERROR(convert_entries(yaml, name, depth, node));
      return node;
  }
  return node;
}

}  // namespace

absl::StatusOr<ConfigNode> parse_yaml(const std::string& text, const std::string& name) {
  try {
    return convert(YAML::Load(text), name, 0);
  } catch (const YAML::Exception& error) {
    return absl::InvalidArgumentError(absl::StrCat(place(error.mark, name), ": ", error.msg));
  }
}

}  // namespace pkv
