// Environment variables as configuration: which are ours, what they override, and what is refused.
#include "server/config/environment.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "server/config/config.h"

namespace pkv {
namespace {

using ::testing::HasSubstr;

std::string refusal(const std::string& variable) {
  const absl::StatusOr<Config> config = parse_config("", {.environment = {variable}});
  EXPECT_EQ(config.status().code(), absl::StatusCode::kInvalidArgument) << variable;
  return std::string(config.status().message());
}

TEST(Environment, EveryKeyHasAVariableOfItsOwn) {
  std::set<std::string> names;
  const Config defaults;
  for (const ConfigKey& key : config_keys()) {
    const std::string name = variable_name(key);
    EXPECT_TRUE(names.insert(name).second) << name;
    const bool is_presets = std::holds_alternative<PresetsKey>(key.type);
    std::string value = is_presets ? "{a: {policy: full}}" : key.show(defaults);
    if (value == "\"\"") value.clear();
    const absl::StatusOr<Config> config = parse_config("", {.environment = {name + "=" + value}});
    ASSERT_TRUE(config.ok()) << config.status();
    EXPECT_EQ(config->places.at(std::string(key.name)), name);
    if (is_presets) {
      EXPECT_EQ(config->policies.presets.size(), 1u);
    } else {
      EXPECT_EQ(key.show(*config), key.show(defaults)) << name;
    }
  }
  EXPECT_TRUE(names.contains("PYRAMIDKV_CACHE__POOL_BYTES"));
}

TEST(Environment, OverridesTheFileAndIsOverriddenBySet) {
  const std::string file = "cache:\n  pool_bytes: 1MiB\n  page_bytes: 8192\nscheduler:\n  max_running: 1\n";
  const absl::StatusOr<Config> config =
      parse_config(file, {.path = "f",
                          .environment = {"PATH=/bin", "PYRAMIDKV_CACHE__POOL_BYTES=2MiB",
                                          "PYRAMIDKV_SCHEDULER__MAX_RUNNING=2", "PYRAMIDKV_METRICS__LISTEN="},
                          .assignments = {"scheduler.max_running=3"}});
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->cache.pool_bytes, 2u << 20);
  EXPECT_EQ(config->cache.page_bytes, 8192);
  EXPECT_EQ(config->scheduler.max_running, 3);
  EXPECT_EQ(config->metrics.listen, "");
}

TEST(Environment, AWrongValueNamesTheVariableAndTheKey) {
  EXPECT_EQ(refusal("PYRAMIDKV_CACHE__DTYPE=f8"),
            "PYRAMIDKV_CACHE__DTYPE: cache.dtype: must be f16, f32, bf16, k8v4, not \"f8\"");
  EXPECT_THAT(refusal("PYRAMIDKV_SCHEDULER__MAX_RUNNING="), HasSubstr("scheduler.max_running: must be a whole number"));
  EXPECT_THAT(refusal("PYRAMIDKV_POLICIES__PRESETS={a: "), HasSubstr("PYRAMIDKV_POLICIES__PRESETS"));
}

TEST(Environment, AVariableThatIsNoKeyIsRefusedByName) {
  EXPECT_EQ(refusal("PYRAMIDKV_CACHE__POOL_BYTE=2GiB"),
            "PYRAMIDKV_CACHE__POOL_BYTE: no such variable: PYRAMIDKV_CACHE__POOL_BYTES sets cache.pool_bytes");
  EXPECT_EQ(refusal("PYRAMIDKV_CACHE__POOL__BYTES=2GiB"),
            "PYRAMIDKV_CACHE__POOL__BYTES: no such variable: PYRAMIDKV_CACHE__POOL_BYTES sets cache.pool_bytes");
  EXPECT_EQ(refusal("PYRAMIDKV_SOMETHING__ELSE"),
            "PYRAMIDKV_SOMETHING__ELSE: no such variable: keys are PYRAMIDKV_SECTION__KEY, see --help");
  EXPECT_THAT(refusal("PYRAMIDKV_cache__pool_bytes=2GiB"), HasSubstr("PYRAMIDKV_CACHE__POOL_BYTES sets"));
}

// A limit that somebody thinks is set, and is not, would be found out in production.
TEST(Environment, ASingleUnderscoreForTheDotIsRefused) {
  EXPECT_EQ(refusal("PYRAMIDKV_CACHE_POOL_BYTES=2GiB"),
            "PYRAMIDKV_CACHE_POOL_BYTES: no such variable: PYRAMIDKV_CACHE__POOL_BYTES sets cache.pool_bytes");
  EXPECT_THAT(refusal("PYRAMIDKV_SERVER_LISTEN=0.0.0.0:1"), HasSubstr("PYRAMIDKV_SERVER__LISTEN"));
}

// Kubernetes puts these into pods beside Services of such names. Together with SingleUnderscore they also say that no
// key may be called server.port or the like.
TEST(Environment, WhatOthersCallSimilarlyIsPassedOver) {
  std::vector<std::string> environment = {"PYRAMIDKV_SERVER=127.0.0.1:50051", "PYRAMIDKV_CONFIG=/etc/x.yaml",
                                          "PYRAMIDKV__X=1", "PYRAMIDKV_=1", "MY_PYRAMIDKV_CACHE__DTYPE=f8"};
  for (const char* service :
       {"PYRAMIDKV", "PYRAMIDKV_SERVER", "PYRAMIDKV_MODEL", "PYRAMIDKV_CACHE", "PYRAMIDKV_RUNTIME",
        "PYRAMIDKV_SCHEDULER", "PYRAMIDKV_METRICS", "PYRAMIDKV_LOG", "PYRAMIDKV_POLICIES"}) {
    for (const char* suffix : {"_SERVICE_HOST", "_SERVICE_PORT", "_SERVICE_PORT_GRPC", "_PORT", "_PORT_50051_TCP",
                               "_PORT_50051_TCP_PROTO", "_PORT_50051_TCP_PORT", "_PORT_50051_TCP_ADDR"}) {
      environment.push_back(std::string(service) + suffix + "=tcp://10.0.0.1:50051");
    }
  }
  const absl::StatusOr<std::vector<Variable>> variables = config_variables(environment);
  ASSERT_TRUE(variables.ok()) << variables.status();
  EXPECT_TRUE(variables->empty());
}

}  // namespace
}  // namespace pkv
