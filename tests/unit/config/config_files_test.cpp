// Every file in config/ loads, and server.yaml documents every key of the table with its default.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "server/config/config.h"
#include "server/config/config_keys.h"
#include "server/config/config_node.h"

namespace pkv {
namespace {

const std::filesystem::path kConfigDir = PKV_CONFIG_DIR;

TEST(ConfigFiles, EveryFileLoads) {
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(kConfigDir)) {
    if (entry.path().extension() != ".yaml") continue;
    const absl::StatusOr<Config> config = load_config({.path = entry.path().string()});
    EXPECT_TRUE(config.ok()) << config.status();
    ++files;
  }
  EXPECT_GE(files, 1);
}

void collect_keys(const ConfigNode& node, const std::string& path, std::set<std::string>& keys) {
  if (find_config_key(path) != nullptr) {
    keys.insert(path);
    return;
  }
  for (const auto& [name, child] : node.entries) collect_keys(child, path.empty() ? name : path + "." + name, keys);
}

TEST(ConfigFiles, ServerYamlHasEveryKey) {
  std::ifstream file(kConfigDir / "server.yaml");
  std::ostringstream text;
  text << file.rdbuf();
  const absl::StatusOr<ConfigNode> root = parse_yaml(text.str(), "server.yaml");
  ASSERT_TRUE(root.ok()) << root.status();
  std::set<std::string> present;
  collect_keys(*root, "", present);
  for (const ConfigKey& key : config_keys()) EXPECT_TRUE(present.contains(std::string(key.name))) << key.name;
}

TEST(ConfigFiles, ServerYamlHoldsTheDefaults) {
  const absl::StatusOr<Config> config = load_config({.path = (kConfigDir / "server.yaml").string()});
  ASSERT_TRUE(config.ok()) << config.status();
  const Config defaults;
  for (const ConfigKey& key : config_keys()) {
    if (std::holds_alternative<PresetsKey>(key.type)) continue;  // the file's are examples
    EXPECT_EQ(key.show(*config), key.show(defaults)) << key.name;
  }
}

}  // namespace
}  // namespace pkv
