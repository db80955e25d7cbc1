// Loading: precedence, types and ranges, and that every refusal names the key and its line.
#include "server/config/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <utility>

#include "server/config/config_keys.h"
#include "server/config/config_values.h"

namespace pkv {
namespace {

using ::testing::HasSubstr;

std::string refusal(const std::string& text, const std::vector<std::string>& assignments = {}) {
  const absl::StatusOr<Config> config = parse_config(text, {.path = "file.yaml", .assignments = assignments});
  EXPECT_FALSE(config.ok()) << text;
  EXPECT_EQ(config.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(config.status().message());
}

TEST(Config, DefaultsWithoutAFile) {
  const absl::StatusOr<Config> config = load_config({});
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->server.listen, "127.0.0.1:50051");
  EXPECT_EQ(config->metrics.listen, "127.0.0.1:9464");
  EXPECT_EQ(config->cache.dtype, KvDtype::kF16);
  EXPECT_EQ(config->cache.page_bytes, 0);  // the device's choice
  EXPECT_EQ(config->policies.default_name, "full");
  EXPECT_EQ(config->policies.default_keep_ratio, 0.125);
}

TEST(Config, AnEmptyFileIsTheDefaults) { EXPECT_TRUE(parse_config("# nothing\n", {}).ok()); }

TEST(Config, SetGoesBeforeTheFileAndTheFileBeforeDefaults) {
  const std::string file = "cache:\n  pool_bytes: 2MiB\n  page_bytes: 8192\nscheduler:\n  max_running: 3\n";
  const absl::StatusOr<Config> config =
      parse_config(file, {.assignments = {"cache.pool_bytes=3MiB", "cache.pool_bytes=4MiB"}});
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->cache.pool_bytes, 4u << 20);
  EXPECT_EQ(config->cache.page_bytes, 8192);
  EXPECT_EQ(config->scheduler.max_running, 3);
  EXPECT_EQ(config->scheduler.max_waiting, Config{}.scheduler.max_waiting);
}

TEST(Config, UnknownKeysAreRefusedWithKeyAndLine) {
  EXPECT_EQ(refusal("server:\n  listen: 127.0.0.1:1\n  lisen: 127.0.0.1:1\n"),
            "file.yaml:3: server.lisen: unknown key; is server.listen meant?");
  EXPECT_EQ(refusal("\nserver2:\n  listen: a:1\n"), "file.yaml:2: server2: unknown key");
  EXPECT_EQ(refusal("", {"server.lisen=a:1"}), "--set: server.lisen: unknown key; is server.listen meant?");
  EXPECT_EQ(refusal("", {"colour.of.the.sky=blue"}), "--set: colour.of.the.sky: unknown key");
  EXPECT_THAT(refusal("", {"server.listen"}), HasSubstr("key=value"));
}

TEST(Config, RepeatedKeysAreRefused) {
  EXPECT_EQ(refusal("cache:\n  dtype: f16\n  dtype: f32\n"), "file.yaml:3: dtype: given twice");
  EXPECT_EQ(refusal("cache:\n  dtype: f16\ncache:\n  dtype: f16\n"), "file.yaml:3: cache: given twice");
}

TEST(Config, WrongFormsAreRefused) {
  EXPECT_EQ(refusal("- 1\n- 2\n"), "file.yaml:1: no key takes a list");
  EXPECT_THAT(refusal("server: 5\n"), HasSubstr("file.yaml:1: server: must be a mapping of keys"));
  EXPECT_THAT(refusal("cache:\n  dtype:\n    a: 1\n"),
              HasSubstr("file.yaml:2: cache.dtype: must be f16, f32, bf16, k8v4, not a mapping"));
  EXPECT_THAT(refusal("cache: {\n"), HasSubstr("file.yaml:"));
  EXPECT_THAT(refusal("a: &x [*x]\n"), HasSubstr("file.yaml:"));
}

struct BadValue {
  const char* key;
  const char* value;
};

class BadValues : public ::testing::TestWithParam<BadValue> {};

TEST_P(BadValues, NameKeyAndPlace) {
  const auto& [key, value] = GetParam();
  const std::string expected = std::string("--set: ") + key + ": must be ";
  EXPECT_THAT(refusal("", {std::string(key) + "=" + value}), HasSubstr(expected));
}

INSTANTIATE_TEST_SUITE_P(
    Config, BadValues,
    ::testing::Values(
        BadValue{"server.listen", "nowhere"}, BadValue{"server.listen", "host:70000"},
        BadValue{"server.listen", "::1:5"}, BadValue{"server.reflection", "maybe"},
        BadValue{"server.drain_seconds", "-1"}, BadValue{"server.drain_seconds", "nan"}, BadValue{"model.id", "a\nb"},
        BadValue{"cache.pool_bytes", "12 parsecs"}, BadValue{"cache.pool_bytes", "-1MiB"},
        BadValue{"cache.pool_bytes", "1"}, BadValue{"cache.dtype", "f8"}, BadValue{"cache.page_bytes", "64"},
        BadValue{"cache.page_bytes", "4096.5"}, BadValue{"runtime.device", "gpu"}, BadValue{"runtime.device", "cuda:"},
        BadValue{"runtime.device", "cuda:-1"}, BadValue{"runtime.compute", "float16"}, BadValue{"runtime.isa", "avx"},
        BadValue{"runtime.threads", "-1"}, BadValue{"runtime.workspace_bytes", ""},
        BadValue{"scheduler.max_running", "0"}, BadValue{"scheduler.max_waiting", "many"},
        BadValue{"scheduler.max_waiting", "0"}, BadValue{"cache.page_bytes", "4100"},
        BadValue{"scheduler.step_tokens", "0"}, BadValue{"metrics.listen", "9464"}, BadValue{"log.level", "loud"},
        BadValue{"log.format", "xml"}, BadValue{"policies.default", ""}, BadValue{"policies.default_keep_ratio", "0"},
        BadValue{"policies.default_keep_ratio", "1.01"}, BadValue{"policies.presets", "3"}));

TEST(Config, GoodValuesOfEveryType) {
  const absl::StatusOr<Config> config =
      parse_config("", {.assignments = {"server.listen=[::]:0", "server.insecure=yes", "server.reflection=off",
                                        "server.drain_seconds=0.5", "model.path=a b/c=d.gguf",
                                        "cache.pool_bytes=1.5 GiB", "cache.dtype=f32", "runtime.device=cuda:1",
                                        "metrics.listen=", "runtime.workspace_bytes=70000"}});
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->server.listen, "[::]:0");
  EXPECT_FALSE(config->server.reflection);
  EXPECT_EQ(config->server.drain_seconds, 0.5);
  EXPECT_EQ(config->model.path, "a b/c=d.gguf");
  EXPECT_EQ(config->cache.pool_bytes, uint64_t{3} << 29);
  EXPECT_EQ(config->cache.dtype, KvDtype::kF32);
  EXPECT_EQ(config->runtime.device, "cuda:1");
  EXPECT_EQ(config->metrics.listen, "");
  EXPECT_EQ(config->runtime.workspace_bytes, 70000u);
}

TEST(Config, Presets) {
  const std::string file =
      "policies:\n  presets:\n    small:\n      policy: pyramidkv\n      tokens: 128\n      beta: 10.5\n"
      "    half: {policy: snapkv, keep_ratio: 0.5, window_tokens: 16, pooling: avg}\n";
  const absl::StatusOr<Config> config = parse_config(file, {.path = "f.yaml"});
  ASSERT_TRUE(config.ok()) << config.status();
  ASSERT_EQ(config->policies.presets.size(), 2u);
  const PolicyPreset& small = config->policies.presets[0];
  EXPECT_EQ(small.name, "small");
  EXPECT_EQ(small.where, "f.yaml:3");
  ASSERT_EQ(small.settings.size(), 3u);
  EXPECT_EQ(small.settings[0].key, "policy");
  EXPECT_EQ(small.settings[0].value, "pyramidkv");
  EXPECT_EQ(small.settings[2].key, "beta");
  EXPECT_EQ(small.settings[2].value, "10.5");
  EXPECT_EQ(small.settings[2].where, "f.yaml:6");
  EXPECT_EQ(config->policies.presets[1].settings.size(), 4u);
  EXPECT_EQ(config->policies.presets[1].settings[3].where, "f.yaml:7");
}

TEST(Config, PresetsFromTheCommandLineReplaceTheFile) {
  const std::string file = "policies:\n  presets:\n    a: {policy: full}\n";
  const absl::StatusOr<Config> config =
      parse_config(file, {.assignments = {"policies.presets={b: {policy: snapkv, tokens: 64}}"}});
  ASSERT_TRUE(config.ok()) << config.status();
  ASSERT_EQ(config->policies.presets.size(), 1u);
  EXPECT_EQ(config->policies.presets[0].name, "b");
}

TEST(Config, BadPresetsNameKeyAndLine) {
  const std::string head = "policies:\n  presets:\n    a:\n      policy: snapkv\n";
  EXPECT_EQ(refusal(head + "      tokens: {b: 3}\n"), "file.yaml:5: policies.presets.a.tokens: must be a single value");
  EXPECT_EQ(refusal(head + "      policy: h2o\n"), "file.yaml:5: policy: given twice");
  EXPECT_THAT(refusal("policies:\n  presets:\n    \"\": {policy: full}\n"), HasSubstr("needs a name"));
  EXPECT_THAT(refusal("policies:\n  presets:\n    a: 3\n"),
              HasSubstr("file.yaml:3: policies.presets.a: must be a mapping"));
}

TEST(Config, AddressesThatTakeEachOthersPortAreRefused) {
  const auto together = [](const std::string& server, const std::string& metrics) {
    return parse_config(
               "", {.assignments = {"server.listen=" + server, "metrics.listen=" + metrics, "server.insecure=true"}})
        .status();
  };
  for (const auto& [server, metrics] : {std::pair("127.0.0.1:9464", "127.0.0.1:9464"),
                                        {"0.0.0.0:80", "127.0.0.1:80"},
                                        {"10.0.0.1:80", "[::]:80"},
                                        {"127.0.0.1:080", "127.0.0.1:80"}}) {
    EXPECT_THAT(together(server, metrics).message(), HasSubstr("--set: metrics.listen: is \"")) << server;
  }
  EXPECT_TRUE(together("127.0.0.1:0", "127.0.0.1:0").ok());
  EXPECT_TRUE(together("10.0.0.1:80", "10.0.0.2:80").ok());
  EXPECT_TRUE(together("127.0.0.1:80", "").ok());
  EXPECT_EQ(refusal("metrics:\n  listen: 0.0.0.0:50051\n").find("file.yaml:2: metrics.listen: "), 0u);
  EXPECT_THAT(refusal("", {"server.health_listen=127.0.0.1:50051"}), HasSubstr("--set: server.health_listen: is \""));
  EXPECT_THAT(refusal("", {"server.health_listen=127.0.0.1:9464"}), HasSubstr("which server.health_listen ("));
}

TEST(Config, AddressesOfThisMachineAlone) {
  for (const char* local : {"127.0.0.1:1", "127.9.9.9:1", "localhost:1", "[::1]:1"})
    EXPECT_TRUE(is_local_address(local)) << local;
  for (const char* open : {"0.0.0.0:1", "[::]:1", "10.0.0.1:1", ":1", "127.example.com:1", "localhost.example.com:1"})
    EXPECT_FALSE(is_local_address(open)) << open;
}

TEST(Config, WhatOthersCanReachNeedsTlsOrKeysOrAWord) {
  const std::string open = "server:\n  listen: 0.0.0.0:50051\n";
  EXPECT_THAT(refusal(open),
              AllOf(HasSubstr("file.yaml:2: server.listen: is \"0.0.0.0:50051\""), HasSubstr("server.tls.cert"),
                    HasSubstr("server.api_keys"), HasSubstr("server.insecure")));
  EXPECT_THAT(refusal("http:\n  listen: 0.0.0.0:8000\n"),
              AllOf(HasSubstr("file.yaml:2: http.listen: is"), HasSubstr("server.api_keys")));
  for (const std::vector<std::string>& guard : std::vector<std::vector<std::string>>{
           {"server.insecure=true"}, {"server.api_keys=keys"}, {"server.tls.cert=c.pem", "server.tls.key=k.pem"}}) {
    const absl::StatusOr<Config> config = parse_config(open, {.path = "file.yaml", .assignments = guard});
    EXPECT_TRUE(config.ok()) << config.status();
  }
}

TEST(Config, TlsNeedsItsOtherFiles) {
  EXPECT_THAT(refusal("", {"server.tls.cert=c.pem"}), HasSubstr("--set: server.tls.cert: needs server.tls.key"));
  EXPECT_THAT(refusal("", {"server.tls.key=k.pem"}), HasSubstr("--set: server.tls.key: needs server.tls.cert"));
  EXPECT_THAT(refusal("", {"server.tls.client_ca=ca.pem"}),
              HasSubstr("--set: server.tls.client_ca: needs server.tls.cert"));
}

TEST(Config, APoolOfNoPageOrOfTooManyIsRefused) {
  EXPECT_THAT(refusal("", {"cache.pool_bytes=1MiB", "cache.page_bytes=2097152"}),
              HasSubstr("--set: cache.pool_bytes: must hold a page"));
  EXPECT_THAT(refusal("", {"cache.pool_bytes=1024TiB", "cache.page_bytes=256"}),
              HasSubstr("cache.pool_bytes: must be at most"));
}

// Without a page size of its own the configuration is checked when the device has chosen one.
TEST(Config, ThePoolIsCheckedAgainstTheDevicesPages) {
  const absl::StatusOr<Config> config =
      parse_config("", {.assignments = {"cache.page_bytes=0", "cache.pool_bytes=1MiB"}});
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_TRUE(check_pool(*config, 1 << 20).ok());
  EXPECT_THAT(std::string(check_pool(*config, 1 << 21).message()),
              HasSubstr("--set: cache.pool_bytes: must hold a page"));
}

TEST(Config, KnowsWhereAKeyWasSet) {
  const absl::StatusOr<Config> config =
      parse_config("model:\n  path: a\n  id: b\n",
                   {.path = "f.yaml", .environment = {"PYRAMIDKV_MODEL__ID=c"}, .assignments = {"log.level=warn"}});
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->about("model.path", "no"), "f.yaml:2: model.path: no");
  EXPECT_EQ(config->about("model.id", "no"), "PYRAMIDKV_MODEL__ID: model.id: no");
  EXPECT_EQ(config->about("log.level", "no"), "--set: log.level: no");
  EXPECT_EQ(config->about("log.format", "no"), "log.format: no");
}

TEST(Config, ADirectoryIsNoFile) {
  const absl::Status status = load_config({.path = "/"}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(status.message(), HasSubstr("is a directory"));
}

TEST(Config, AMissingFileIsNotFound) {
  EXPECT_EQ(load_config({.path = "/nonexistent/server.yaml"}).status().code(), absl::StatusCode::kNotFound);
}

TEST(ConfigKeys, NamesAreUniqueAndDocumented) {
  std::set<std::string_view> names;
  for (const ConfigKey& key : config_keys()) {
    EXPECT_TRUE(names.insert(key.name).second) << key.name;
    EXPECT_TRUE(key.documentation.ends_with('.')) << key.name;
    EXPECT_FALSE(key.range().empty()) << key.name;
  }
}

TEST(ConfigKeys, ShownDefaultsReadBackAsTheDefaults) {
  const Config defaults;
  for (const ConfigKey& key : config_keys()) {
    if (std::holds_alternative<PresetsKey>(key.type)) continue;
    std::string text = key.show(defaults);
    if (text == "\"\"") text.clear();
    const absl::StatusOr<Config> config = parse_config("", {.assignments = {std::string(key.name) + "=" + text}});
    ASSERT_TRUE(config.ok()) << config.status();
    EXPECT_EQ(key.show(*config), key.show(defaults)) << key.name;
  }
}

TEST(ConfigKeys, TheNearestKeyIsTheOneMeant) {
  EXPECT_EQ(nearest_config_key("cache.pool_byte")->name, "cache.pool_bytes");
  EXPECT_EQ(nearest_config_key("sever.lisen")->name, "server.listen");
  EXPECT_EQ(nearest_config_key("something.else"), nullptr);
}

TEST(ConfigValues, EditDistance) {
  EXPECT_EQ(edit_distance("", ""), 0u);
  EXPECT_EQ(edit_distance("abc", ""), 3u);
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3u);
  EXPECT_EQ(edit_distance("ab", "ba"), 2u);
}

TEST(ConfigValues, Bytes) {
  EXPECT_EQ(parse_bytes("0"), 0u);
  EXPECT_EQ(parse_bytes("512MiB"), uint64_t{512} << 20);
  EXPECT_EQ(parse_bytes("2 GB"), 2'000'000'000u);
  EXPECT_EQ(parse_bytes("4KiB"), 4096u);
  EXPECT_EQ(parse_bytes("18446744073709551615"), UINT64_MAX);
  for (const char* bad : {"", "MiB", "-1", "1e400MiB", "1 MiB ", "0x10", "5mib", "99999999999TiB"}) {
    EXPECT_FALSE(parse_bytes(bad).has_value()) << bad;
  }
  EXPECT_EQ(show_bytes(uint64_t{512} << 20), "512MiB");
  EXPECT_EQ(show_bytes(1000), "1000");
}

}  // namespace
}  // namespace pkv
