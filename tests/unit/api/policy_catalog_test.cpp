// Cache policies of callers: defaults filled in, presets, and everything that is refused names its field.
#include "server/api/policy_catalog.h"

#include <gmock/gmock.h>
#include <google/protobuf/text_format.h>

#include "server/api/policy_budget.h"
#include "server/policy/registry.h"
#include "tests/support/lane_table.h"
#include "tests/unit/api/api_fixture.h"

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
  config.presets.push_back(make_preset("small", {{"policy", "pyramidkv"}, {"tokens", "64"}, {"beta", "10"}}));
  return *PolicyCatalog::create(config, KvDtype::kF32, test::lane_table());
}

TEST(PolicyCatalog, WithoutALaneTableFunnelIsGlobal) {
  const PolicyCatalog bare = *PolicyCatalog::create({}, KvDtype::kF16);
  const absl::StatusOr<PolicySpec> spec = bare.resolve(message("funnel {}"));
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->params.funnel_allocation, FunnelAllocation::kGlobal);
  const DecodedError error =
      decode_error(bare.resolve(message("funnel { allocation: FUNNEL_ALLOCATION_TABLE }")).status());
  EXPECT_EQ(error.reason, "BAD_CACHE_POLICY");
  EXPECT_EQ(error.field, "cache_policy.funnel.allocation");
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

// A policy as it is asked for, and as it is echoed.
struct Echo {
  const char* wished;
  const char* effective;
};

class Effective : public ::testing::TestWithParam<Echo> {};

TEST_P(Effective, NamesEveryDefault) {
  const absl::StatusOr<PolicySpec> spec = catalog().resolve(message(GetParam().wished));
  ASSERT_TRUE(spec.ok()) << spec.status();
  const bool funnel = spec->kind == PolicyKind::kFunnel;  // has a format of its own
  const std::string rest = absl::StrCat(" kv_dtype: ", funnel ? "KV_DTYPE_K8V4" : "KV_DTYPE_F32",
                                        " pin_system_message: false", " prefill: PREFILL_ATTENTION_DENSE");
  EXPECT_EQ(to_proto(*spec).DebugString(), message(GetParam().effective + rest).DebugString());
  // What is echoed means the same when it is sent again.
  EXPECT_EQ(to_proto(*catalog().resolve(to_proto(*spec))).DebugString(), to_proto(*spec).DebugString());
}

// Defaults as docs/policies.md has them; policies.default_keep_ratio is 0.125.
INSTANTIATE_TEST_SUITE_P(
    Policies, Effective,
    ::testing::Values(
        Echo{"", "full {}"},
        Echo{"streaming_llm {}",
             "streaming_llm { sink_tokens: 4 position_mode: POSITION_MODE_ORIGINAL } "
             "budget { keep_ratio: 0.125 scope: BUDGET_SCOPE_PROMPT }"},
        Echo{"h2o {}", "h2o { score: AGGREGATION_SUM } budget { keep_ratio: 0.125 scope: BUDGET_SCOPE_PROMPT }"},
        Echo{"snapkv {} budget { tokens: 64 }",
             "snapkv { window_tokens: 8 kernel_size: 7 pooling: POOLING_MAX group_aggregation: AGGREGATION_MEAN } "
             "budget { tokens: 64 scope: BUDGET_SCOPE_PROMPT }"},
        Echo{"pyramidkv {} budget { tokens: 128 }",
             "pyramidkv { window_tokens: 8 kernel_size: 7 pooling: POOLING_MAX group_aggregation: AGGREGATION_MEAN "
             "beta: 20 allocation: PYRAMID_ALLOCATION_EXACT } budget { tokens: 128 scope: BUDGET_SCOPE_PROMPT }"},
        Echo{"l2norm {}", "l2norm { window_tokens: 8 } budget { keep_ratio: 0.125 scope: BUDGET_SCOPE_PROMPT }"},
        Echo{"tova {}", "tova {} budget { keep_ratio: 0.125 scope: BUDGET_SCOPE_PROMPT }"},
        Echo{"keydiff {}", "keydiff { window_tokens: 8 } budget { keep_ratio: 0.125 scope: BUDGET_SCOPE_PROMPT }"},
        Echo{"random {}",
             "random { seed: 0 window_tokens: 8 sink_tokens: 4 } "
             "budget { keep_ratio: 0.125 scope: BUDGET_SCOPE_PROMPT }"},
        Echo{"funnel {}",
             "funnel { window_tokens: 32 sink_tokens: 4 observed_rows: 256 allocation: FUNNEL_ALLOCATION_TABLE "
             "refit_values: false } budget { keep_ratio: 0.125 scope: BUDGET_SCOPE_PROMPT }"},
        Echo{"funnel { window_tokens: 9 observed_rows: 64 } budget { tokens: 99 }",
             "funnel { window_tokens: 9 sink_tokens: 4 observed_rows: 64 allocation: FUNNEL_ALLOCATION_TABLE "
             "refit_values: false } budget { tokens: 99 scope: BUDGET_SCOPE_PROMPT }"},
        Echo{"ada_snapkv {}",
             "ada_snapkv { window_tokens: 8 kernel_size: 7 pooling: POOLING_MAX group_aggregation: AGGREGATION_MEAN "
             "floor: 0.2 } budget { keep_ratio: 0.125 scope: BUDGET_SCOPE_PROMPT }"},
        Echo{"ada_pyramidkv {}",
             "ada_pyramidkv { window_tokens: 8 kernel_size: 7 pooling: POOLING_MAX group_aggregation: AGGREGATION_MEAN "
             "floor: 0.2 beta: 20 } budget { keep_ratio: 0.125 scope: BUDGET_SCOPE_PROMPT }"}));

INSTANTIATE_TEST_SUITE_P(
    Parameters, Effective,
    ::testing::Values(
        Echo{"streaming_llm { sink_tokens: 7 position_mode: POSITION_MODE_CACHE_RELATIVE }",
             "streaming_llm { sink_tokens: 7 position_mode: POSITION_MODE_CACHE_RELATIVE } "
             "budget { keep_ratio: 0.125 scope: BUDGET_SCOPE_PROMPT }"},
        Echo{"h2o { recent_tokens: 9 score: AGGREGATION_MEAN } budget { tokens: 20 }",
             "h2o { recent_tokens: 9 score: AGGREGATION_MEAN } budget { tokens: 20 scope: BUDGET_SCOPE_PROMPT }"},
        Echo{"pyramidkv { window_tokens: 16 kernel_size: 5 pooling: POOLING_AVG group_aggregation: AGGREGATION_MAX "
             "beta: 2.5 allocation: PYRAMID_ALLOCATION_FACTORY } budget { keep_ratio: 0.12 }",
             "pyramidkv { window_tokens: 16 kernel_size: 5 pooling: POOLING_AVG group_aggregation: AGGREGATION_MAX "
             "beta: 2.5 allocation: PYRAMID_ALLOCATION_FACTORY } "
             "budget { keep_ratio: 0.12 scope: BUDGET_SCOPE_PROMPT }"},
        Echo{"l2norm { window_tokens: 3 } budget { tokens: 20 }",
             "l2norm { window_tokens: 3 } budget { tokens: 20 scope: BUDGET_SCOPE_PROMPT }"},
        Echo{"keydiff { window_tokens: 3 } budget { tokens: 20 }",
             "keydiff { window_tokens: 3 } budget { tokens: 20 scope: BUDGET_SCOPE_PROMPT }"},
        Echo{"random { seed: 18446744073709551615 window_tokens: 3 sink_tokens: 2 } budget { tokens: 20 }",
             "random { seed: 18446744073709551615 window_tokens: 3 sink_tokens: 2 } "
             "budget { tokens: 20 scope: BUDGET_SCOPE_PROMPT }"}));

INSTANTIATE_TEST_SUITE_P(
    Budgets, Effective,
    ::testing::Values(
        Echo{"tova {} budget { scope: BUDGET_SCOPE_TOTAL }",
             "tova {} budget { keep_ratio: 0.125 scope: BUDGET_SCOPE_TOTAL interval_tokens: 64 }"},
        Echo{"tova {} budget { tokens: 20 scope: BUDGET_SCOPE_TOTAL interval_tokens: 5 }",
             "tova {} budget { tokens: 20 scope: BUDGET_SCOPE_TOTAL interval_tokens: 5 }"},
        Echo{"tova {} budget { bytes: 5000000000 }",
             "tova {} budget { bytes: 5000000000 scope: BUDGET_SCOPE_TOTAL interval_tokens: 64 }"},
        Echo{"tova {} budget { bytes: 5 scope: BUDGET_SCOPE_PROMPT }",
             "tova {} budget { bytes: 5 scope: BUDGET_SCOPE_PROMPT }"},
        Echo{"tova {} budget { min_recall: 0.9 }",
             "tova {} budget { min_recall: 0.9 scope: BUDGET_SCOPE_PROMPT allow_shortfall: false }"},
        Echo{"tova {} budget { min_recall: 1 max_bytes: 77 allow_shortfall: true }",
             "tova {} budget { min_recall: 1 scope: BUDGET_SCOPE_PROMPT max_bytes: 77 allow_shortfall: true }"}));

TEST(PolicyCatalog, EveryPolicyOfTheContractIsBuilt) {
  const auto* policies = pb::CachePolicy::descriptor()->FindOneofByName("policy");
  for (int i = 0; i < policies->field_count(); ++i) {
    const std::string& name = policies->field(i)->name();
    if (name == "preset") continue;
    ASSERT_NE(find_policy(name), nullptr) << name;
    const pb::CachePolicy echoed = to_proto(catalog().defaults_of(find_policy(name)->kind));
    EXPECT_EQ(echoed.policy_case(), policies->field(i)->number()) << name;
  }
}

TEST(PolicyCatalog, HowAPromptIsReadIsTakenAndEchoed) {
  const auto spec = catalog().resolve(message("snapkv {} prefill: PREFILL_ATTENTION_VERTICAL_SLASH"));
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->prefill, PrefillAttention::kVerticalSlash);
  EXPECT_EQ(to_proto(*spec).prefill_tokens(), 2048u);
  const auto sized =
      catalog().resolve(message("preset: 'small' prefill: PREFILL_ATTENTION_VERTICAL_SLASH prefill_tokens: 128"));
  ASSERT_TRUE(sized.ok()) << sized.status();
  EXPECT_EQ(to_proto(*sized).prefill(), pb::PREFILL_ATTENTION_VERTICAL_SLASH);
  EXPECT_EQ(to_proto(*sized).prefill_tokens(), 128u);
}

TEST(PolicyCatalog, APresetSaysHowPromptsAreRead) {
  PoliciesConfig config;
  config.presets = {
      make_preset("quick", {{"policy", "full"}, {"prefill", "vertical_slash"}, {"prefill_tokens", "1024"}})};
  const auto presets = PolicyCatalog::create(config, KvDtype::kF16);
  ASSERT_TRUE(presets.ok()) << presets.status();
  const auto spec = presets->resolve(message("preset: 'quick'"));
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->prefill, PrefillAttention::kVerticalSlash);
  EXPECT_EQ(spec->prefill_tokens, 1024);
  EXPECT_EQ(presets->resolve(message("preset: 'quick' prefill: PREFILL_ATTENTION_DENSE"))->prefill,
            PrefillAttention::kDense);
}

TEST(PolicyCatalog, PinsAreTakenAndEchoed) {
  const absl::StatusOr<PolicySpec> spec =
      catalog().resolve(message("snapkv {} pins { begin: 3 end: 5 } pins { end: 1 } pin_system_message: true"));
  ASSERT_TRUE(spec.ok()) << spec.status();
  ASSERT_EQ(spec->pins.size(), 2u);
  EXPECT_EQ(spec->pins[0].begin, 3);
  EXPECT_EQ(spec->pins[0].end, 5);
  EXPECT_EQ(spec->pins[1].begin, 0);
  const pb::CachePolicy echoed = to_proto(*spec);
  EXPECT_EQ(echoed.pins_size(), 2);
  EXPECT_EQ(echoed.pins(0).end(), 5u);
  EXPECT_TRUE(echoed.pin_system_message());
}

TEST(PolicyCatalog, ManyPinsButNotAnyNumber) {
  pb::CachePolicy policy = message("snapkv {}");
  for (uint32_t i = 0; i < kMaxPins; ++i) {
    pb::TokenSpan& pin = *policy.add_pins();
    pin.set_begin(2 * i);
    pin.set_end(2 * i + 1);
  }
  EXPECT_TRUE(catalog().resolve(policy).ok());
  policy.add_pins()->set_end(1);
  EXPECT_EQ(decode_error(catalog().resolve(policy).status()).field, "cache_policy.pins");
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
  const absl::StatusOr<PolicySpec> total = catalog().resolve(
      message("preset: 'small' budget { scope: BUDGET_SCOPE_TOTAL } pins { end: 2 } kv_dtype: KV_DTYPE_F16"));
  ASSERT_TRUE(total.ok()) << total.status();
  EXPECT_EQ(total->budget.tokens, 64);
  EXPECT_EQ(total->budget.scope, BudgetScope::kTotal);
  EXPECT_EQ(total->pins.size(), 1u);
  EXPECT_EQ(total->kv_dtype, KvDtype::kF16);
}

TEST(PolicyCatalog, AnAmountReplacesAPresetsWholeBudget) {
  PoliciesConfig config;
  config.presets.push_back(make_preset(
      "p", {{"policy", "tova"}, {"min_recall", "0.5"}, {"max_bytes", "1KiB"}, {"allow_shortfall", "true"}}));
  const PolicyCatalog catalog = *PolicyCatalog::create(config, KvDtype::kF16);
  EXPECT_EQ(catalog.resolve(message("preset: 'p'"))->budget.max_bytes, 1024u);
  EXPECT_EQ(catalog.resolve(message("preset: 'p' budget { allow_shortfall: false }"))->budget.max_bytes, 1024u);
  const absl::StatusOr<PolicySpec> tokens = catalog.resolve(message("preset: 'p' budget { tokens: 9 }"));
  ASSERT_TRUE(tokens.ok()) << tokens.status();
  EXPECT_EQ(tokens->budget.max_bytes, 0u);
  EXPECT_FALSE(tokens->budget.allow_shortfall);
}

TEST(PolicyCatalog, AnUnknownPresetIsNotFound) {
  const DecodedError error = decode_error(catalog().resolve(message("preset: 'large'")).status());
  EXPECT_EQ(error.code, absl::StatusCode::kNotFound);
  EXPECT_EQ(error.field, "cache_policy.preset");
}

TEST(PolicyCatalog, WhatIsSwitchedOffIsRefusedByItsName) {
  PoliciesConfig config;
  config.disabled = "h2o, random";
  const PolicyCatalog catalog = *PolicyCatalog::create(config, KvDtype::kF16);
  for (const char* policy : {"h2o", "random"}) {
    const DecodedError error = decode_error(catalog.resolve(message(absl::StrCat(policy, " {}"))).status());
    EXPECT_EQ(error.code, absl::StatusCode::kFailedPrecondition);
    EXPECT_EQ(error.reason, "POLICY_DISABLED");
    EXPECT_EQ(error.field, absl::StrCat("cache_policy.", policy));
    EXPECT_THAT(error.message, HasSubstr("policies.disabled"));
    EXPECT_FALSE(catalog.enabled(find_policy(policy)->kind));
  }
  EXPECT_TRUE(catalog.resolve(message("snapkv {}")).ok());
  EXPECT_TRUE(catalog.resolve({}).ok());
}

struct Refusal {
  const char* policy;
  const char* field;
};

TEST(PolicyCatalog, EveryFormatOfEntriesIsKnown) {
  const std::pair<const char*, KvDtype> formats[] = {{"KV_DTYPE_F16", KvDtype::kF16},
                                                     {"KV_DTYPE_BF16", KvDtype::kBF16},
                                                     {"KV_DTYPE_F32", KvDtype::kF32},
                                                     {"KV_DTYPE_K8V4", KvDtype::kK8V4}};
  EXPECT_EQ(std::size(formats), std::size(kEntryFormats.rows));
  for (const auto& [name, dtype] : formats) {
    const absl::StatusOr<PolicySpec> spec = catalog().resolve(message(absl::StrCat("full {} kv_dtype: ", name)));
    ASSERT_TRUE(spec.ok()) << spec.status();
    EXPECT_EQ(spec->kv_dtype, dtype) << name;
  }
}

class BadPolicy : public ::testing::TestWithParam<Refusal> {};

TEST_P(BadPolicy, NamesTheField) {
  const DecodedError error = decode_error(catalog().resolve(message(GetParam().policy)).status());
  EXPECT_EQ(error.code, absl::StatusCode::kInvalidArgument) << error.message;
  EXPECT_EQ(error.reason, "BAD_CACHE_POLICY");
  EXPECT_EQ(error.field, GetParam().field);
}

INSTANTIATE_TEST_SUITE_P(
    PolicyCatalog, BadPolicy,
    ::testing::Values(
        Refusal{"full {} budget { tokens: 64 }", "cache_policy.budget"},
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
        Refusal{"ada_snapkv { floor: 1.5 }", "cache_policy.ada_snapkv.floor"},
        Refusal{"ada_pyramidkv { beta: 0.5 }", "cache_policy.ada_pyramidkv.beta"},
        Refusal{"funnel { allocation: 3 }", "cache_policy.funnel.allocation"},
        Refusal{"funnel { observed_rows: 0 }", "cache_policy.funnel.observed_rows"},
        Refusal{"funnel {} budget { tokens: 36 }", "cache_policy.budget.tokens"},
        Refusal{"snapkv {} budget { tokens: 64 scope: 9 }", "cache_policy.budget.scope"},
        Refusal{"full {} budget { scope: BUDGET_SCOPE_TOTAL }", "cache_policy.budget"},
        Refusal{"snapkv {} budget { bytes: 0 }", "cache_policy.budget.bytes"},
        Refusal{"snapkv {} budget { min_recall: 0 }", "cache_policy.budget.min_recall"},
        Refusal{"snapkv {} budget { min_recall: 1.000001 }", "cache_policy.budget.min_recall"},
        Refusal{"l2norm {} budget { min_recall: 0.5 }", "cache_policy.budget.min_recall"},
        Refusal{"streaming_llm {} budget { min_recall: 0.5 }", "cache_policy.budget.min_recall"},
        Refusal{"snapkv {} budget { tokens: 64 max_bytes: 5 }", "cache_policy.budget.max_bytes"},
        Refusal{"snapkv {} budget { min_recall: 1 max_bytes: 0 }", "cache_policy.budget.max_bytes"},
        Refusal{"snapkv {} budget { tokens: 64 allow_shortfall: true }", "cache_policy.budget.allow_shortfall"},
        Refusal{"snapkv {} budget { tokens: 64 interval_tokens: 64 }", "cache_policy.budget.interval_tokens"},
        Refusal{"snapkv {} budget { tokens: 64 scope: BUDGET_SCOPE_TOTAL interval_tokens: 0 }",
                "cache_policy.budget.interval_tokens"},
        Refusal{"snapkv {} pins { begin: 0 end: 2 } pins { begin: 4 end: 4 }", "cache_policy.pins[1]"},
        Refusal{"snapkv {} pins { begin: 0 end: 4294967295 }", "cache_policy.pins[0].end"},
        Refusal{"h2o { score: AGGREGATION_MAX }", "cache_policy.h2o.score"},
        Refusal{"h2o { recent_tokens: 0 }", "cache_policy.h2o.recent_tokens"},
        Refusal{"h2o { recent_tokens: 64 } budget { tokens: 64 }", "cache_policy.budget.tokens"},
        Refusal{"streaming_llm { position_mode: 9 }", "cache_policy.streaming_llm.position_mode"},
        Refusal{"random { window_tokens: 0 }", "cache_policy.random.window_tokens"},
        Refusal{"full {} kv_dtype: 9", "cache_policy.kv_dtype"}, Refusal{"full {} prefill: 9", "cache_policy.prefill"},
        Refusal{"full {} prefill_tokens: 512", "cache_policy.prefill_tokens"},  // the prefill is dense
        Refusal{"full {} prefill: PREFILL_ATTENTION_VERTICAL_SLASH prefill_tokens: 127",
                "cache_policy.prefill_tokens"}));

TEST(PolicyCatalog, ACountBeyondAllMeasureIsToldThePolicysOwnRange) {
  const auto told = [](const char* policy) {
    return decode_error(catalog().resolve(message(policy)).status()).message;
  };
  EXPECT_EQ(told("snapkv { kernel_size: 1073741825 }"),
            "cache_policy.snapkv.kernel_size: must be odd, 1 to 1023, not 1073741825");
  EXPECT_EQ(told("funnel { observed_rows: 4294967295 }"),
            "cache_policy.funnel.observed_rows: must be 1 to 8192, not 4294967295");
  EXPECT_EQ(told("h2o { recent_tokens: 1073741825 }"),
            "cache_policy.h2o.recent_tokens: must be >= 1, below the budget, not 1073741825");
}

std::string refused_config(const PoliciesConfig& config) {
  return std::string(PolicyCatalog::create(config, KvDtype::kF16).status().message());
}

TEST(PolicyCatalog, BadConfigurationsNameKeyAndPlace) {
  PoliciesConfig config;
  config.default_name = "fastest";
  EXPECT_THAT(
      refused_config(config),
      ::testing::StartsWith("policies.default: \"fastest\" is no policy and no preset; the policies are full, "));
  config.default_name = "full";
  config.disabled = "h2o, h3o";
  EXPECT_EQ(refused_config(config), "policies.disabled: \"h3o\" is no policy; there are " + policy_names());
  EXPECT_THAT(policy_names(), ::testing::StartsWith("full, "));
  EXPECT_THAT(policy_names(), HasSubstr(", h2o, "));
  config.disabled = "full";
  EXPECT_THAT(refused_config(config), HasSubstr("policies.default: full is switched off"));
  config.disabled = "snapkv";
  config.presets = {make_preset("a", {{"tokens", "64"}, {"policy", "snapkv"}})};
  EXPECT_THAT(refused_config(config), HasSubstr("f:3: policies.presets.a.policy: snapkv is switched off"));
}

struct BadPreset {
  std::vector<std::pair<std::string, std::string>> settings;
  const char* problem;  // how the refusal begins; the settings are on the lines from 2 on
};

class BadPresets : public ::testing::TestWithParam<BadPreset> {};

TEST_P(BadPresets, NameKeyAndPlace) {
  PoliciesConfig config;
  config.presets = {make_preset("a", GetParam().settings)};
  EXPECT_THAT(refused_config(config), ::testing::StartsWith(GetParam().problem));
}

INSTANTIATE_TEST_SUITE_P(
    PolicyCatalog, BadPresets,
    ::testing::Values(
        BadPreset{{{"tokens", "64"}}, "f:1: policies.presets.a.policy: is missing"},
        BadPreset{{{"policy", "h3o"}}, "f:2: policies.presets.a.policy: \"h3o\" is no policy; there are full, "},
        BadPreset{{{"policy", "preset"}}, "f:2: policies.presets.a.policy: "},
        BadPreset{{{"policy", "snapkv"}, {"beta", "3"}}, "f:3: policies.presets.a.beta: unknown key"},
        BadPreset{{{"policy", "snapkv"}, {"tokns", "3"}}, "f:3: policies.presets.a.tokns: unknown key"},
        BadPreset{{{"policy", "snapkv"}, {"pins", "3"}}, "f:3: policies.presets.a.pins: unknown key"},
        BadPreset{{{"policy", "snapkv"}, {"pooling", "median"}},
                  "f:3: policies.presets.a.pooling: must be one of max, avg, none, not \"median\""},
        BadPreset{{{"policy", "snapkv"}, {"pooling", "unspecified"}},
                  "f:3: policies.presets.a.pooling: must be one of"},
        BadPreset{{{"policy", "snapkv"}, {"tokens", "-5"}},
                  "f:3: policies.presets.a.tokens: must be a whole number, not \"-5\""},
        BadPreset{{{"policy", "random"}, {"seed", "x"}}, "f:3: policies.presets.a.seed: must be a whole number"},
        BadPreset{{{"policy", "pyramidkv"}, {"beta", "wide"}}, "f:3: policies.presets.a.beta: must be a number"},
        BadPreset{{{"policy", "snapkv"}, {"bytes", "4 parsecs"}}, "f:3: policies.presets.a.bytes: must be bytes"},
        BadPreset{{{"policy", "snapkv"}, {"allow_shortfall", "maybe"}},
                  "f:3: policies.presets.a.allow_shortfall: must be true or false"},
        BadPreset{{{"policy", "snapkv"}, {"kv_dtype", "f8"}}, "f:3: policies.presets.a.kv_dtype: "},
        BadPreset{{{"policy", "snapkv"}, {"prefill", "sparse"}},
                  "f:3: policies.presets.a.prefill: must be one of dense, vertical_slash, not \"sparse\""},
        BadPreset{{{"policy", "full"}, {"prefill", "vertical_slash"}, {"prefill_tokens", "5"}},
                  "f:4: policies.presets.a.prefill_tokens: must be at least 128"},
        BadPreset{{{"policy", "snapkv"}, {"tokens", "64"}, {"keep_ratio", "0.5"}},
                  "f:4: policies.presets.a.keep_ratio: a preset has one budget, and tokens is given as well"},
        BadPreset{{{"policy", "snapkv"}, {"tokens", "4"}}, "f:3: policies.presets.a.tokens: "},
        BadPreset{{{"policy", "full"}, {"tokens", "64"}}, "f:1: policies.presets.a.budget: "},
        BadPreset{{{"kernel_size", "4"}, {"policy", "snapkv"}}, "f:2: policies.presets.a.kernel_size: "}));

TEST(PolicyCatalog, APresetIsNoPolicysName) {
  PoliciesConfig config;
  config.presets = {make_preset("full", {{"policy", "snapkv"}})};
  EXPECT_THAT(refused_config(config), HasSubstr("f:1: policies.presets.full: is the name of a policy"));
}

TEST(PolicyCatalog, PresetsHaveEveryParameter) {
  PoliciesConfig config;
  config.presets = {
      make_preset("a", {{"policy", "streaming_llm"},
                        {"sink_tokens", "2"},
                        {"position_mode", "cache_relative"},
                        {"bytes", "4MiB"},
                        {"scope", "prompt"}}),
      make_preset("b", {{"policy", "h2o"},
                        {"recent_tokens", "5"},
                        {"score", "mean"},
                        {"tokens", "64"},
                        {"scope", "total"},
                        {"interval_tokens", "9"}}),
      make_preset("c", {{"policy", "random"}, {"seed", "12"}, {"kv_dtype", "f32"}, {"keep_ratio", "0.5"}}),
      make_preset("d", {{"policy", "snapkv"},
                        {"min_recall", "0.9"},
                        {"max_bytes", "2 MiB"},
                        {"allow_shortfall", "true"},
                        {"pooling", "avg"}})};
  const absl::StatusOr<PolicyCatalog> catalog = PolicyCatalog::create(config, KvDtype::kF16);
  ASSERT_TRUE(catalog.ok()) << catalog.status();
  const char* expected[] = {
      "streaming_llm { sink_tokens: 2 position_mode: POSITION_MODE_CACHE_RELATIVE } budget { bytes: 4194304 scope: "
      "BUDGET_SCOPE_PROMPT } kv_dtype: KV_DTYPE_F16 pin_system_message: false",
      "h2o { recent_tokens: 5 score: AGGREGATION_MEAN } budget { tokens: 64 scope: BUDGET_SCOPE_TOTAL "
      "interval_tokens: 9 } kv_dtype: KV_DTYPE_F16 pin_system_message: false",
      "random { seed: 12 window_tokens: 8 sink_tokens: 4 } budget { keep_ratio: 0.5 scope: BUDGET_SCOPE_PROMPT } "
      "kv_dtype: KV_DTYPE_F32 pin_system_message: false",
      "snapkv { window_tokens: 8 kernel_size: 7 pooling: POOLING_AVG group_aggregation: AGGREGATION_MEAN } budget { "
      "min_recall: 0.9 scope: BUDGET_SCOPE_PROMPT max_bytes: 2097152 allow_shortfall: true } kv_dtype: KV_DTYPE_F16 "
      "pin_system_message: false"};
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(to_proto(catalog->presets()[i].second).DebugString(),
              message(std::string(expected[i]) + " prefill: PREFILL_ATTENTION_DENSE").DebugString());
  }
}

TEST(PolicyCatalog, APresetMayBeTheDefault) {
  PoliciesConfig config;
  config.default_name = "small";
  config.presets = {make_preset("small", {{"policy", "snapkv"}, {"keep_ratio", "0.5"}})};
  const absl::StatusOr<PolicyCatalog> catalog = PolicyCatalog::create(config, KvDtype::kF16);
  ASSERT_TRUE(catalog.ok()) << catalog.status();
  EXPECT_EQ(catalog->resolve({})->budget.keep_ratio_millionths, 500'000);
  EXPECT_EQ(catalog->resolve(message("budget { tokens: 77 }"))->budget.tokens, 77);
}

}  // namespace
}  // namespace pkv
