// The table of policies, and that every bad parameter is refused by the name of its field.
#include <set>

#include "gmock/gmock.h"
#include "tests/unit/policy/policy_specs.h"

namespace pkv {
namespace {

std::string refusal(const PolicySpec& spec) {
  const auto result = make_policy(spec);
  if (result.ok()) return "accepted";
  EXPECT_EQ(result.status().code(), absl::StatusCode::kInvalidArgument);
  const std::string message(result.status().message());
  return message.substr(0, message.find(':'));
}

TEST(PolicyTable, HasOneRowPerKindAndName) {
  std::set<PolicyKind> kinds;
  std::set<std::string_view> names;
  for (const PolicyRow& row : policy_table()) {
    EXPECT_TRUE(kinds.insert(row.kind).second);
    EXPECT_TRUE(names.insert(row.name).second);
    EXPECT_EQ(&policy_row(row.kind), &row);
    EXPECT_EQ(find_policy(row.name), &row);
    EXPECT_FALSE(row.summary.empty());
    EXPECT_EQ(row.takes_budget, row.kind != PolicyKind::kFull);
  }
  EXPECT_EQ(kinds.size(), 3u);
  EXPECT_EQ(find_policy("h2o"), nullptr);
  EXPECT_EQ(find_policy(""), nullptr);
}

TEST(PolicyTable, StatesTheDefaultsThatParamsHave) {
  const PolicyParams defaults;
  const auto stated = [](std::string_view name) -> std::string_view {
    for (const ParameterInfo& info : policy_row(PolicyKind::kPyramidKv).parameters) {
      if (info.name == name) return info.default_value;
    }
    return "absent";
  };
  EXPECT_EQ(stated("window_tokens"), std::to_string(defaults.window_tokens));
  EXPECT_EQ(stated("kernel_size"), std::to_string(defaults.kernel_size));
  EXPECT_EQ(stated("beta"), std::to_string(defaults.beta_millionths / kMillion));
  EXPECT_EQ(stated("pooling"), "MAX");
  EXPECT_EQ(defaults.pooling, PoolKind::kMax);
  EXPECT_EQ(stated("group_aggregation"), "MEAN");
  EXPECT_EQ(defaults.group_aggregation, GroupReduce::kMean);
  EXPECT_EQ(stated("allocation"), "EXACT");
  EXPECT_EQ(defaults.allocation, PyramidAllocation::kExact);
}

TEST(Validation, FullTakesNoBudget) {
  EXPECT_EQ(refusal({.kind = PolicyKind::kFull}), "accepted");
  PolicySpec spec{.kind = PolicyKind::kFull, .budget = {.kind = BudgetKind::kTokens, .tokens = 128}};
  EXPECT_EQ(refusal(spec), "cache_policy.budget");
}

class WindowPolicyValidation : public ::testing::TestWithParam<PolicyKind> {
 protected:
  std::string field(const std::string& name) {
    return "cache_policy." + std::string(policy_row(GetParam()).name) + "." + name;
  }
};

TEST_P(WindowPolicyValidation, ChecksTheBudget) {
  EXPECT_EQ(refusal({.kind = GetParam()}), "cache_policy.budget");
  for (int64_t tokens : {-1, 0, 7, 8}) {
    EXPECT_EQ(refusal(spec_of(GetParam(), tokens)), "cache_policy.budget.tokens") << tokens;
  }
  EXPECT_EQ(refusal(spec_of(GetParam(), 9)), "accepted");
  for (int64_t millionths : {-1, 0, 1'000'001}) {
    EXPECT_EQ(refusal(spec_of_ratio(GetParam(), millionths)), "cache_policy.budget.keep_ratio") << millionths;
  }
  EXPECT_EQ(refusal(spec_of_ratio(GetParam(), 1)), "accepted");
  EXPECT_EQ(refusal(spec_of_ratio(GetParam(), kMillion)), "accepted");
}

TEST_P(WindowPolicyValidation, ChecksWindowAndKernel) {
  PolicySpec spec = spec_of(GetParam(), 128);
  for (int32_t window : {0, -3}) {
    spec.params.window_tokens = window;
    EXPECT_EQ(refusal(spec), field("window_tokens"));
  }
  spec.params.window_tokens = 127;
  EXPECT_EQ(refusal(spec), "accepted");
  spec.params.window_tokens = 128;
  EXPECT_EQ(refusal(spec), "cache_policy.budget.tokens");
  spec.params.window_tokens = 8;
  for (int32_t kernel : {0, -1, 2, 6}) {
    spec.params.kernel_size = kernel;
    EXPECT_EQ(refusal(spec), field("kernel_size"));
  }
  spec.params.kernel_size = 1;
  EXPECT_EQ(refusal(spec), "accepted");
}

INSTANTIATE_TEST_SUITE_P(Policies, WindowPolicyValidation,
                         ::testing::Values(PolicyKind::kSnapKv, PolicyKind::kPyramidKv));

TEST(Validation, PyramidsNeedABetaOfAtLeastOne) {
  PolicySpec spec = spec_of(PolicyKind::kPyramidKv, 128);
  spec.params.beta_millionths = kMillion - 1;
  EXPECT_EQ(refusal(spec), "cache_policy.pyramidkv.beta");
  spec.params.beta_millionths = kMillion;
  EXPECT_EQ(refusal(spec), "accepted");
  spec.kind = PolicyKind::kSnapKv;
  spec.params.beta_millionths = 0;  // no parameter of snapkv
  EXPECT_EQ(refusal(spec), "accepted");
}

}  // namespace
}  // namespace pkv
