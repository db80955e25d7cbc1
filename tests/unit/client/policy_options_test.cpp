// Words about a policy against the fields they set, the notation of lists, and the complaints about wrong words.
#include "client/policy_options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace pkv::client {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::StartsWith;

TEST(ParseBudget, TokensSharesBytesAndRecall) {
  v1::CacheBudget budget;
  EXPECT_EQ(parse_budget("128", budget), "");
  EXPECT_EQ(budget.tokens(), 128u);
  EXPECT_EQ(parse_budget("12.5%", budget), "");
  EXPECT_DOUBLE_EQ(budget.keep_ratio(), 0.125);
  EXPECT_EQ(parse_budget("recall:0.95", budget), "");
  EXPECT_DOUBLE_EQ(budget.min_recall(), 0.95);
  EXPECT_EQ(budget.amount_case(), v1::CacheBudget::kMinRecall);
}

TEST(ParseBudget, EveryUnitOfBytes) {
  const std::pair<const char*, uint64_t> kCases[] = {
      {"4096B", 4096},  {"3KiB", 3072},   {"4MiB", uint64_t{4} << 20}, {"2GiB", uint64_t{2} << 30},
      {"1.5 kB", 1500}, {"2MB", 2000000}, {"1GB", 1000000000},         {"0.5MiB", uint64_t{1} << 19}};
  for (const auto& [text, bytes] : kCases) {
    v1::CacheBudget budget;
    EXPECT_EQ(parse_budget(text, budget), "") << text;
    EXPECT_EQ(budget.amount_case(), v1::CacheBudget::kBytes) << text;
    EXPECT_EQ(budget.bytes(), bytes) << text;
  }
}

TEST(ParseBudget, NamesWhatIsWrong) {
  for (const char* text : {"", "many", "12 apples", "-3", "%", "nan%", "1e300GiB", "1e15GiB", "-1MiB", "nanMiB", "MiB",
                           "recall:", "recall:inf", "recall:high", "5000000000", "150%", "0%", "-5%"}) {
    v1::CacheBudget budget;
    EXPECT_THAT(parse_budget(text, budget), HasSubstr("--budget")) << text;
    EXPECT_EQ(budget.amount_case(), v1::CacheBudget::AMOUNT_NOT_SET) << text;
  }
}

TEST(ParseBudget, SharesOutsideTheirRangeAreToldInPerCent) {
  v1::CacheBudget budget;
  EXPECT_EQ(parse_budget("150%", budget),
            "--budget: '150%' is no share of the prompt, which is over 0% and at most 100%");
  EXPECT_EQ(parse_budget("100%", budget), "");
  EXPECT_EQ(budget.keep_ratio(), 1);
}

TEST(PolicyNames, AreThoseOfTheContract) {
  EXPECT_THAT(policy_names(), ElementsAre("full", "streaming_llm", "h2o", "snapkv", "pyramidkv", "l2norm", "tova",
                                          "keydiff", "random", "funnel", "ada_snapkv", "ada_pyramidkv"));
}

TEST(BuildPolicy, EveryNameChoosesItsMessage) {
  for (const std::string& name : policy_names()) {
    v1::CachePolicy policy;
    ASSERT_EQ(build_policy({.policy = name}, policy), "") << name;
    EXPECT_EQ(describe_policy(policy), name);
    EXPECT_FALSE(policy.has_budget());
  }
}

TEST(BuildPolicy, AnotherNameIsAPreset) {
  v1::CachePolicy policy;
  EXPECT_EQ(build_policy({.policy = "small"}, policy), "");
  EXPECT_EQ(policy.preset(), "small");
  EXPECT_EQ(build_policy({.preset = "full"}, policy), "");
  EXPECT_EQ(policy.preset(), "full");
  EXPECT_EQ(build_policy({.policy = "budget"}, policy), "");  // a field of CachePolicy that is no policy
  EXPECT_EQ(policy.preset(), "budget");
  EXPECT_THAT(build_policy({.policy = "snapkv", .preset = "small"}, policy), HasSubstr("exclude"));
}

TEST(BuildPolicy, ParametersOfEveryType) {
  v1::CachePolicy policy;
  const std::vector<std::string> params{"window_tokens=16", "beta=10.5", "allocation=factory", "pooling=avg",
                                        "group_aggregation=max"};
  ASSERT_EQ(build_policy({.policy = "pyramidkv", .params = params}, policy), "");
  EXPECT_EQ(policy.pyramidkv().window_tokens(), 16u);
  EXPECT_EQ(policy.pyramidkv().beta(), 10.5);
  EXPECT_EQ(policy.pyramidkv().allocation(), v1::PYRAMID_ALLOCATION_FACTORY);
  EXPECT_EQ(policy.pyramidkv().pooling(), v1::POOLING_AVG);
  EXPECT_EQ(policy.pyramidkv().group_aggregation(), v1::AGGREGATION_MAX);
  EXPECT_FALSE(policy.pyramidkv().has_kernel_size());
  ASSERT_EQ(build_policy({.policy = "random", .params = {"seed=18446744073709551615"}}, policy), "");
  EXPECT_EQ(policy.random().seed(), ~uint64_t{0});
  ASSERT_EQ(
      build_policy({.policy = "streaming_llm", .params = {"sink_tokens=0", "position_mode=cache_relative"}}, policy),
      "");
  EXPECT_TRUE(policy.streaming_llm().has_sink_tokens());
  EXPECT_EQ(policy.streaming_llm().position_mode(), v1::POSITION_MODE_CACHE_RELATIVE);
}

TEST(BuildPolicy, NamesTheWrongParameter) {
  v1::CachePolicy policy;
  const auto error = [&](const char* name, const char* param) {
    return build_policy({.policy = name, .params = {param}}, policy);
  };
  EXPECT_EQ(error("h2o", "window_tokens=3"),
            "--param: h2o has no parameter 'window_tokens', only recent_tokens, score");
  EXPECT_EQ(error("tova", "window_tokens=3"), "--param: tova has no parameter 'window_tokens', nor any other");
  EXPECT_EQ(error("h2o", "score=median"), "--param: score is sum, mean, max, not 'median'");
  EXPECT_EQ(error("h2o", "score=unspecified"), "--param: score is sum, mean, max, not 'unspecified'");
  EXPECT_EQ(error("h2o", "recent_tokens=-1"), "--param: recent_tokens is a whole number from 0, not '-1'");
  EXPECT_EQ(error("pyramidkv", "beta=nan"), "--param: beta is a number, not 'nan'");
  EXPECT_EQ(error("h2o", "recent_tokens"), "--param: 'recent_tokens' is not KEY=VALUE");
  EXPECT_EQ(error("h2o", "=4"), "--param: '=4' is not KEY=VALUE");
  EXPECT_THAT(error("", "beta=2"), HasSubstr("--policy"));
  EXPECT_THAT(error("small", "beta=2"), HasSubstr("--policy"));
}

TEST(BuildPolicy, WhatTheBudgetCoversAndSpares) {
  v1::CachePolicy policy;
  ASSERT_EQ(build_policy({.policy = "snapkv",
                          .budget = "recall:0.9",
                          .scope = "total",
                          .max_bytes = "4MiB",
                          .kv_dtype = "k8v4",
                          .prefill = "vertical_slash",
                          .prefill_tokens = 512,
                          .pins = {"0:4", "100:120"},
                          .interval_tokens = 32,
                          .pin_system = true,
                          .allow_shortfall = true},
                         policy),
            "");
  EXPECT_EQ(policy.budget().min_recall(), 0.9);
  EXPECT_EQ(policy.budget().scope(), v1::BUDGET_SCOPE_TOTAL);
  EXPECT_EQ(policy.budget().max_bytes(), uint64_t{4} << 20);
  EXPECT_EQ(policy.budget().interval_tokens(), 32u);
  EXPECT_TRUE(policy.budget().allow_shortfall());
  EXPECT_EQ(policy.kv_dtype(), v1::KV_DTYPE_K8V4);
  EXPECT_EQ(policy.prefill(), v1::PREFILL_ATTENTION_VERTICAL_SLASH);
  EXPECT_EQ(policy.prefill_tokens(), 512u);
  ASSERT_EQ(policy.pins_size(), 2);
  EXPECT_EQ(policy.pins(1).begin(), 100u);
  EXPECT_EQ(policy.pins(1).end(), 120u);
  EXPECT_TRUE(policy.pin_system_message());
  v1::CachePolicy bare;
  ASSERT_EQ(build_policy({.max_bytes = "4096"}, bare), "");
  EXPECT_EQ(bare.budget().max_bytes(), 4096u);
}

TEST(BuildPolicy, NamesTheWrongOption) {
  v1::CachePolicy policy;
  for (const char* pin : {"4", "1:2:3", "a:b", ":", "-1:4", "1:"})
    EXPECT_THAT(build_policy({.pins = {pin}}, policy), StartsWith("--pin")) << pin;
  EXPECT_EQ(build_policy({.scope = "all"}, policy), "--scope: 'all' is not one of prompt total");
  EXPECT_EQ(build_policy({.kv_dtype = "f64"}, policy), "--kv-dtype: 'f64' is not one of f16 bf16 f32 k8v4");
  EXPECT_EQ(build_policy({.prefill = "sparse"}, policy), "--prefill: 'sparse' is not one of dense vertical_slash");
  EXPECT_THAT(build_policy({.max_bytes = "many"}, policy), StartsWith("--max-bytes"));
  EXPECT_THAT(build_policy({.budget = "x"}, policy), StartsWith("--budget"));
}

TEST(BuildPolicy, NothingSaidIsNothingSet) {
  v1::CachePolicy policy;
  EXPECT_EQ(build_policy({}, policy), "");
  EXPECT_EQ(policy.ByteSizeLong(), 0u);
}

TEST(ParsePolicies, EveryFormOfTheNotation) {
  std::vector<NamedPolicy> policies;
  ASSERT_EQ(parse_policies("full, "
                           "pyramidkv:128,snapkv:12%,h2o:4MiB,tova:64:total,keydiff::total,snapkv:recall:0.95,l2norm:"
                           "recall:0.9:prompt,small,funnel:20%::f16",
                           {}, policies),
            "");
  std::vector<std::string> lines;
  for (const NamedPolicy& named : policies) lines.push_back(describe_policy(named.policy));
  EXPECT_THAT(lines,
              ElementsAre("full", "pyramidkv, budget 128 entries per head", "snapkv, budget 12 % of the prompt",
                          "h2o, budget 4MiB", "tova, budget 64 entries per head, scope total", "keydiff, scope total",
                          "snapkv, budget by recall 0.95", "l2norm, budget by recall 0.9, scope prompt", "preset small",
                          "funnel, budget 20 % of the prompt, entries f16"));
  EXPECT_EQ(policies[1].text, "pyramidkv:128");
}

TEST(ParsePolicies, CommonWordsHoldWhereNothingElseIsSaid) {
  const PolicyOptions common{.budget = "64", .scope = "total", .kv_dtype = "f32", .pins = {"0:4"}, .pin_system = true};
  std::vector<NamedPolicy> policies;
  ASSERT_EQ(parse_policies("full,snapkv,tova:32:prompt", common, policies), "");
  EXPECT_EQ(describe_policy(policies[0].policy), "full, entries f32");
  EXPECT_EQ(describe_policy(policies[1].policy),
            "snapkv, budget 64 entries per head, scope total, entries f32, pinned 0:4, system message pinned");
  EXPECT_EQ(describe_policy(policies[2].policy),
            "tova, budget 32 entries per head, scope prompt, entries f32, pinned 0:4, system message pinned");
}

TEST(ParsePolicies, NamesTheWrongOne) {
  for (const char* list : {"", "full,", "full,:128", "snapkv:1:total:x", "snapkv:x", "snapkv:4:all", "snapkv:recall",
                           "snapkv:recall:", "a:recall:1:total:x"}) {
    std::vector<NamedPolicy> policies;
    EXPECT_THAT(parse_policies(list, {}, policies), StartsWith("--policies: '")) << list;
  }
  std::vector<NamedPolicy> policies;
  EXPECT_THAT(parse_policies("full,snapkv:x", {}, policies), StartsWith("--policies: 'snapkv:x': --budget: 'x'"));
}

TEST(DescribePolicy, EverythingThatIsSet) {
  v1::CachePolicy policy;
  ASSERT_EQ(build_policy({.policy = "random", .budget = "64", .max_bytes = "1kB", .params = {"seed=7"}}, policy), "");
  EXPECT_EQ(describe_policy(policy), "random, budget 64 entries per head, at most 1000B, seed=7");
  EXPECT_EQ(describe_policy({}), "the server's default policy");
}

}  // namespace
}  // namespace pkv::client
