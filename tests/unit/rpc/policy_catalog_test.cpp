// Cache policies of callers: defaults filled in, presets, and everything that is refused names its field.
#include "server/rpc/policy_catalog.h"

#include <gmock/gmock.h>
#include <google/protobuf/text_format.h>

#include <limits>

#include "tests/unit/rpc/rpc_fixture.h"

namespace pkv {
namespace {

namespace pb = ::pyramidkv::v1;
using ::testing::HasSubstr;

pb::CachePolicy message(const std::string& text) {
  pb::CachePolicy policy;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &policy)) << text;
  return policy;
}

PolicyCatalog catalog() {
  PoliciesConfig config;
  config.presets.push_back({.name = "small", .where = "f:1", .policy = "pyramidkv", .tokens = 64, .beta = 10});
  return *PolicyCatalog::create(config, KvDtype::kF32);
}

TEST(PolicyCatalog, UnsetIsTheServersDefault) {
  const absl::StatusOr<PolicySpec> spec = catalog().resolve({});
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->kind, PolicyKind::kFull);
  EXPECT_EQ(spec->budget.kind, BudgetKind::kNone);
  EXPECT_EQ(spec->kv_dtype, KvDtype::kF32);
}

TEST(PolicyCatalog, APolicyWithoutABudgetGetsTheDefaultRatio) {
  const absl::StatusOr<PolicySpec> spec = catalog().resolve(message("snapkv {}"));
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->budget.kind, BudgetKind::kKeepRatio);
  EXPECT_EQ(spec->budget.keep_ratio_millionths, 125000);
}

TEST(PolicyCatalog, EffectivePolicyNamesEveryDefault) {
  const absl::StatusOr<PolicySpec> spec =
      catalog().resolve(message("pyramidkv {} budget { tokens: 128 } kv_dtype: KV_DTYPE_F16"));
  ASSERT_TRUE(spec.ok()) << spec.status();
  // Defaults as docs/policies.md has them: window 8, kernel 7, max pooling, mean over the group, beta 20, EXACT.
  EXPECT_EQ(to_proto(*spec).SerializeAsString(), message("pyramidkv { window_tokens: 8 kernel_size: 7 pooling: "
                                                         "POOLING_MAX group_aggregation: AGGREGATION_MEAN beta: 20 "
                                                         "allocation: PYRAMID_ALLOCATION_EXACT } budget { tokens: 128 "
                                                         "scope: BUDGET_SCOPE_PROMPT } kv_dtype: KV_DTYPE_F16 "
                                                         "pin_system_message: false")
                                                     .SerializeAsString());
}

TEST(PolicyCatalog, ParametersAreTaken) {
  const absl::StatusOr<PolicySpec> spec = catalog().resolve(message(
      "pyramidkv { window_tokens: 16 kernel_size: 5 pooling: POOLING_AVG group_aggregation: AGGREGATION_MAX beta: 2.5 "
      "allocation: PYRAMID_ALLOCATION_FACTORY } budget { keep_ratio: 0.12 }"));
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->params.window_tokens, 16);
  EXPECT_EQ(spec->params.kernel_size, 5);
  EXPECT_EQ(spec->params.pooling, PoolKind::kAvg);
  EXPECT_EQ(spec->params.group_aggregation, GroupReduce::kMax);
  EXPECT_EQ(spec->params.beta_millionths, 2'500'000);
  EXPECT_EQ(spec->params.allocation, PyramidAllocation::kFactory);
  EXPECT_EQ(spec->budget.keep_ratio_millionths, 120'000);
}

TEST(PolicyCatalog, RatiosAreRoundedToSixDecimals) {
  pb::CachePolicy policy = message("snapkv {}");
  policy.mutable_budget()->set_keep_ratio(0.12F);  // 0.119999997...
  EXPECT_EQ(catalog().resolve(policy)->budget.keep_ratio_millionths, 120'000);
}

TEST(PolicyCatalog, PresetsAndWhatIsSetBesideThem) {
  const absl::StatusOr<PolicySpec> plain = catalog().resolve(message("preset: 'small'"));
  ASSERT_TRUE(plain.ok()) << plain.status();
  EXPECT_EQ(plain->kind, PolicyKind::kPyramidKv);
  EXPECT_EQ(plain->budget.tokens, 64);
  EXPECT_EQ(plain->params.beta_millionths, 10 * kMillion);
  const absl::StatusOr<PolicySpec> changed = catalog().resolve(message("preset: 'small' budget { tokens: 99 }"));
  ASSERT_TRUE(changed.ok()) << changed.status();
  EXPECT_EQ(changed->budget.tokens, 99);
  EXPECT_EQ(changed->params.beta_millionths, 10 * kMillion);
}

TEST(PolicyCatalog, AnUnknownPresetIsNotFound) {
  const DecodedError error = decode_error(catalog().resolve(message("preset: 'large'")).status());
  EXPECT_EQ(error.code, grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(error.field, "cache_policy.preset");
}

struct Refusal {
  const char* policy;
  const char* field;
};

class Unbuilt : public ::testing::TestWithParam<Refusal> {};

TEST_P(Unbuilt, IsRefusedByName) {
  const DecodedError error = decode_error(catalog().resolve(message(GetParam().policy)).status());
  EXPECT_EQ(error.code, grpc::StatusCode::UNIMPLEMENTED) << error.message;
  EXPECT_EQ(error.reason, "UNIMPLEMENTED");
  EXPECT_EQ(error.field, GetParam().field);
  EXPECT_THAT(error.message, HasSubstr(GetParam().field));
}

INSTANTIATE_TEST_SUITE_P(
    PolicyCatalog, Unbuilt,
    ::testing::Values(
        Refusal{"streaming_llm {}", "cache_policy.streaming_llm"}, Refusal{"h2o {}", "cache_policy.h2o"},
        Refusal{"l2norm {}", "cache_policy.l2norm"}, Refusal{"tova {}", "cache_policy.tova"},
        Refusal{"keydiff {}", "cache_policy.keydiff"}, Refusal{"random {}", "cache_policy.random"},
        Refusal{"snapkv {} budget { bytes: 1000000 }", "cache_policy.budget.bytes"},
        Refusal{"snapkv {} budget { min_recall: 0.9 }", "cache_policy.budget.min_recall"},
        Refusal{"snapkv {} budget { tokens: 64 max_bytes: 5 }", "cache_policy.budget.max_bytes"},
        Refusal{"snapkv {} budget { tokens: 64 interval_tokens: 64 }", "cache_policy.budget.interval_tokens"},
        Refusal{"snapkv {} budget { tokens: 64 allow_shortfall: true }", "cache_policy.budget.allow_shortfall"},
        Refusal{"snapkv {} budget { tokens: 64 scope: BUDGET_SCOPE_TOTAL }", "cache_policy.budget.scope"},
        Refusal{"snapkv {} pins { begin: 0 end: 4 }", "cache_policy.pins"},
        Refusal{"snapkv {} pin_system_message: true", "cache_policy.pin_system_message"},
        Refusal{"full {} kv_dtype: KV_DTYPE_BF16", "cache_policy.kv_dtype"},
        Refusal{"full {} kv_dtype: KV_DTYPE_K8V4", "cache_policy.kv_dtype"}));

class BadPolicy : public ::testing::TestWithParam<Refusal> {};

TEST_P(BadPolicy, NamesTheField) {
  const DecodedError error = decode_error(catalog().resolve(message(GetParam().policy)).status());
  EXPECT_EQ(error.code, grpc::StatusCode::INVALID_ARGUMENT) << error.message;
  EXPECT_EQ(error.reason, "BAD_CACHE_POLICY");
  EXPECT_EQ(error.field, GetParam().field);
}

INSTANTIATE_TEST_SUITE_P(
    PolicyCatalog, BadPolicy,
    ::testing::Values(Refusal{"full {} budget { tokens: 64 }", "cache_policy.budget"},
                      Refusal{"budget { tokens: 64 }", "cache_policy.budget"},  // the default policy is full
                      Refusal{"snapkv {} budget { tokens: 8 }", "cache_policy.budget.tokens"},
                      Refusal{"pyramidkv {} budget { tokens: 0 }", "cache_policy.budget.tokens"},
                      Refusal{"snapkv {} budget { keep_ratio: 0 }", "cache_policy.budget.keep_ratio"},
                      Refusal{"snapkv {} budget { keep_ratio: 1.01 }", "cache_policy.budget.keep_ratio"},
                      Refusal{"snapkv {} budget { keep_ratio: nan }", "cache_policy.budget.keep_ratio"},
                      Refusal{"snapkv {} budget { keep_ratio: -inf }", "cache_policy.budget.keep_ratio"},
                      Refusal{"snapkv { kernel_size: 4 }", "cache_policy.snapkv.kernel_size"},
                      Refusal{"pyramidkv { kernel_size: 4 }", "cache_policy.pyramidkv.kernel_size"},
                      Refusal{"pyramidkv { beta: 0.5 }", "cache_policy.pyramidkv.beta"},
                      Refusal{"pyramidkv { beta: nan }", "cache_policy.pyramidkv.beta"},
                      Refusal{"pyramidkv { beta: inf }", "cache_policy.pyramidkv.beta"},
                      Refusal{"snapkv { window_tokens: 0 }", "cache_policy.snapkv.window_tokens"},
                      Refusal{"snapkv { window_tokens: 4294967295 }", "cache_policy.snapkv.window_tokens"},
                      Refusal{"snapkv { pooling: 9 }", "cache_policy.snapkv.pooling"},
                      Refusal{"pyramidkv { allocation: 9 }", "cache_policy.pyramidkv.allocation"},
                      Refusal{"snapkv {} budget { tokens: 64 scope: 9 }", "cache_policy.budget.scope"},
                      Refusal{"full {} kv_dtype: 9", "cache_policy.kv_dtype"}));

std::string refused_config(const PoliciesConfig& config) {
  return std::string(PolicyCatalog::create(config, KvDtype::kF16).status().message());
}

TEST(PolicyCatalog, BadConfigurationsNameKeyAndPlace) {
  PoliciesConfig config;
  config.default_name = "fastest";
  EXPECT_THAT(refused_config(config), HasSubstr("policies.default: \"fastest\""));
  config.default_name = "full";
  config.presets = {{.name = "a", .where = "f:7", .policy = "h2o"}};
  EXPECT_THAT(refused_config(config), HasSubstr("f:7: policies.presets.a.policy: \"h2o\""));
  config.presets = {{.name = "a", .where = "f:7", .policy = "snapkv", .beta = 3}};
  EXPECT_THAT(refused_config(config), HasSubstr("f:7: policies.presets.a.beta: "));
  config.presets = {{.name = "a", .where = "f:7", .policy = "snapkv", .pooling = "median"}};
  EXPECT_THAT(refused_config(config), HasSubstr("policies.presets.a.pooling: \"median\""));
  config.presets = {{.name = "a", .where = "f:7", .policy = "snapkv", .tokens = 4}};
  EXPECT_THAT(refused_config(config), HasSubstr("f:7: policies.presets.a.budget.tokens: "));
  config.presets = {{.name = "full", .where = "f:7", .policy = "snapkv"}};
  EXPECT_THAT(refused_config(config), HasSubstr("is the name of a policy"));
}

TEST(PolicyCatalog, APresetMayBeTheDefault) {
  PoliciesConfig config;
  config.default_name = "small";
  config.presets = {{.name = "small", .where = "f:1", .policy = "snapkv", .keep_ratio = 0.5}};
  const absl::StatusOr<PolicyCatalog> catalog = PolicyCatalog::create(config, KvDtype::kF16);
  ASSERT_TRUE(catalog.ok()) << catalog.status();
  EXPECT_EQ(catalog->resolve({})->budget.keep_ratio_millionths, 500'000);
  EXPECT_EQ(catalog->resolve(message("budget { tokens: 77 }"))->budget.tokens, 77);
}

}  // namespace
}  // namespace pkv
