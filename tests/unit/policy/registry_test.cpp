// The table of policies, and that every bad parameter is refused by the name of its field.
#include <limits>
#include <map>
#include <optional>
#include <set>

#include "gmock/gmock.h"
#include "server/status/field_error.h"
#include "tests/unit/policy/policy_specs.h"

namespace pkv {
namespace {

std::string refusal(const PolicySpec& spec) {
  const auto result = make_policy(spec);
  if (result.ok()) return "accepted";
  EXPECT_EQ(result.status().code(), absl::StatusCode::kInvalidArgument);
  const std::optional<FieldError> named = field_error_of(result.status());
  if (!named) return "no field";
  EXPECT_EQ(result.status().message(), named->field + ": " + named->description);
  return named->field;
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
  EXPECT_EQ(kinds.size(), 12u);
  EXPECT_EQ(find_policy("h2"), nullptr);
  EXPECT_EQ(find_policy(""), nullptr);
}

TEST(PolicyTable, SaysWhichPoliciesObserveAttention) {
  for (const PolicyRow& row : policy_table()) {
    EXPECT_EQ(row.observes_attention, observes_attention(*policy_of(spec_of(row.kind, 100)))) << row.name;
  }
}

TEST(PolicyTable, StatesTheDefaultsThatParamsHave) {
  const PolicyParams defaults;
  std::map<std::string_view, std::string> wanted = {
      {"window_tokens", ""},  // each policy's own
      {"sink_tokens", std::to_string(defaults.sink_tokens)},
      {"recent_tokens", "half of the budget"},
      {"kernel_size", std::to_string(defaults.kernel_size)},
      {"beta", std::to_string(defaults.beta_millionths / kMillion)},
      {"floor", "0.2"},
      {"observed_rows", std::to_string(defaults.observed_rows)},
      {"refit_values", "false"},
      {"seed", std::to_string(defaults.seed)},
      {"pooling", "MAX"},
      {"group_aggregation", "MEAN"},
      {"allocation", "EXACT"},
      {"score", "SUM"},
      {"position_mode", "ORIGINAL"},
  };
  EXPECT_EQ(defaults.recent_tokens, std::nullopt);
  EXPECT_EQ(defaults.floor_millionths, 200'000);
  EXPECT_EQ(defaults.pooling, PoolKind::kMax);
  EXPECT_EQ(defaults.group_aggregation, GroupReduce::kMean);
  EXPECT_EQ(defaults.allocation, PyramidAllocation::kExact);
  EXPECT_EQ(defaults.h2o_score, H2oScore::kSum);
  EXPECT_EQ(defaults.funnel_allocation, FunnelAllocation::kTable);
  EXPECT_FALSE(defaults.refit_values);
  EXPECT_EQ(policy_row(PolicyKind::kSnapKv).defaults.window_tokens, 8);
  EXPECT_EQ(policy_row(PolicyKind::kFunnel).defaults.window_tokens, 32);
  EXPECT_EQ(defaults.position_mode, PositionMode::kOriginal);
  std::set<std::string_view> stated;
  for (const PolicyRow& row : policy_table()) {
    wanted["window_tokens"] = std::to_string(row.defaults.window_tokens);
    wanted["allocation"] = row.kind == PolicyKind::kFunnel ? "TABLE" : "EXACT";
    for (const ParameterInfo& info : row.parameters) {
      stated.insert(info.name);
      EXPECT_TRUE(wanted.count(info.name) == 1 && wanted.at(info.name) == info.default_value)
          << row.name << " " << info.name;
    }
  }
  EXPECT_EQ(stated.size(), wanted.size());
}

TEST(PolicyTable, MakesWhatTheParametersSay) {
  const auto window = [](PolicyKind kind, int32_t budget) {
    return policy_of(spec_of(kind, 100))->window_tokens(budget);
  };
  EXPECT_EQ(window(PolicyKind::kFull, 100), 0);
  EXPECT_EQ(window(PolicyKind::kStreamingLlm, 100), 0);
  EXPECT_EQ(window(PolicyKind::kTova, 100), 1);
  EXPECT_EQ(window(PolicyKind::kH2o, 101), 50);
  EXPECT_EQ(window(PolicyKind::kH2o, 1), 1);  // never nothing
  for (const PolicyKind kind : {PolicyKind::kSnapKv, PolicyKind::kPyramidKv, PolicyKind::kL2Norm, PolicyKind::kKeyDiff,
                                PolicyKind::kRandom, PolicyKind::kAdaSnapKv, PolicyKind::kAdaPyramidKv}) {
    EXPECT_EQ(window(kind, 100), 8);
  }
  PolicySpec spec = spec_of(PolicyKind::kH2o, 100);
  spec.params.recent_tokens = 17;
  EXPECT_EQ(policy_of(spec)->window_tokens(100), 17);
  for (const PolicyRow& row : policy_table()) {
    const bool has_sinks =
        row.kind == PolicyKind::kStreamingLlm || row.kind == PolicyKind::kRandom || row.kind == PolicyKind::kFunnel;
    EXPECT_EQ(policy_of(spec_of(row.kind, 100))->sink_tokens(), has_sinks ? 4 : 0) << row.name;
  }
}

TEST(Validation, FullTakesNoBudget) {
  EXPECT_EQ(refusal({.kind = PolicyKind::kFull}), "accepted");
  EXPECT_EQ(refusal({.kind = PolicyKind::kFull, .pins = {{3, 9}}}), "accepted");  // everything is kept
  for (const BudgetKind kind :
       {BudgetKind::kTokens, BudgetKind::kKeepRatio, BudgetKind::kBytes, BudgetKind::kMinRecall}) {
    EXPECT_EQ(refusal({.kind = PolicyKind::kFull, .budget = {.kind = kind}}), "cache_policy.budget");
  }
  EXPECT_EQ(refusal({.kind = PolicyKind::kFull, .budget = {.max_bytes = 1}}), "cache_policy.budget");
}

// What every policy that takes a budget checks alike.
class PolicyValidation : public ::testing::TestWithParam<PolicyKind> {
 protected:
  PolicySpec with_budget(const Budget& budget) {
    return {.kind = GetParam(), .budget = budget, .lane_table = test::lane_table()};
  }
};

TEST_P(PolicyValidation, ChecksTheAmount) {
  const int32_t always_kept = GetParam() == PolicyKind::kStreamingLlm                                  ? 4
                              : GetParam() == PolicyKind::kRandom || GetParam() == PolicyKind::kFunnel ? 12
                              : GetParam() == PolicyKind::kTova || GetParam() == PolicyKind::kH2o      ? 1
                                                                                                       : 8;
  EXPECT_EQ(refusal(with_budget({})), "cache_policy.budget");
  for (const int64_t tokens : {-1, 0, always_kept}) {
    EXPECT_EQ(refusal(spec_of(GetParam(), tokens)), "cache_policy.budget.tokens") << tokens;
  }
  EXPECT_EQ(refusal(spec_of(GetParam(), always_kept + 1)), "accepted");
  for (const int64_t millionths : {-1, 0, 1'000'001}) {
    EXPECT_EQ(refusal(spec_of_ratio(GetParam(), millionths)), "cache_policy.budget.keep_ratio") << millionths;
  }
  EXPECT_EQ(refusal(spec_of_ratio(GetParam(), 1)), "accepted");
  EXPECT_EQ(refusal(spec_of_ratio(GetParam(), kMillion)), "accepted");
  EXPECT_EQ(refusal(with_budget({.kind = BudgetKind::kBytes})), "cache_policy.budget.bytes");
  EXPECT_EQ(refusal(with_budget({.kind = BudgetKind::kBytes, .bytes = 1, .scope = BudgetScope::kTotal})), "accepted");
}

TEST_P(PolicyValidation, TakesARecallOnlyWhereAttentionIsObserved) {
  Budget budget{.kind = BudgetKind::kMinRecall, .min_recall_millionths = 900'000};
  if (!policy_row(GetParam()).observes_attention) {
    EXPECT_EQ(refusal(with_budget(budget)), "cache_policy.budget.min_recall");
    return;
  }
  EXPECT_EQ(refusal(with_budget(budget)), "accepted");
  for (const int64_t millionths : {-1, 0, 1'000'001}) {
    budget.min_recall_millionths = millionths;
    EXPECT_EQ(refusal(with_budget(budget)), "cache_policy.budget.min_recall") << millionths;
  }
  budget.min_recall_millionths = kMillion;
  budget.scope = BudgetScope::kTotal;
  EXPECT_EQ(refusal(with_budget(budget)), "cache_policy.budget.scope");
  budget.scope = BudgetScope::kPrompt;
  budget.allow_shortfall = true;
  EXPECT_EQ(refusal(with_budget(budget)), "cache_policy.budget.allow_shortfall");
  budget.max_bytes = 1;
  EXPECT_EQ(refusal(with_budget(budget)), "accepted");
  budget.allow_shortfall = false;
  EXPECT_EQ(refusal(with_budget(budget)), "accepted");
}

TEST_P(PolicyValidation, RefusesARecallsCompanionsWithoutIt) {
  PolicySpec spec = spec_of(GetParam(), 100);
  spec.budget.max_bytes = 1;
  EXPECT_EQ(refusal(spec), "cache_policy.budget.max_bytes");
  spec.budget.max_bytes = 0;
  spec.budget.allow_shortfall = true;
  EXPECT_EQ(refusal(spec), "cache_policy.budget.allow_shortfall");
}

TEST_P(PolicyValidation, ChecksTheInterval) {
  PolicySpec spec = spec_of(GetParam(), 100);
  for (const int32_t interval : {0, -64}) {
    spec.budget.interval_tokens = interval;
    EXPECT_EQ(refusal(spec), "cache_policy.budget.interval_tokens");
  }
  spec.budget.interval_tokens = 1;
  EXPECT_EQ(refusal(spec), "accepted");
}

TEST_P(PolicyValidation, ChecksPins) {
  PolicySpec spec = spec_of(GetParam(), 100);
  spec.pins = {{0, 1}, {4, 9}, {5, 6}};
  EXPECT_EQ(refusal(spec), "accepted");
  for (const TokenSpan bad : {TokenSpan{-1, 3}, TokenSpan{3, 3}, TokenSpan{4, 3}, TokenSpan{}}) {
    spec.pins[1] = bad;
    EXPECT_EQ(refusal(spec), "cache_policy.pins[1]");
  }
}

INSTANTIATE_TEST_SUITE_P(Policies, PolicyValidation,
                         ::testing::Values(PolicyKind::kStreamingLlm, PolicyKind::kH2o, PolicyKind::kSnapKv,
                                           PolicyKind::kPyramidKv, PolicyKind::kL2Norm, PolicyKind::kTova,
                                           PolicyKind::kKeyDiff, PolicyKind::kRandom, PolicyKind::kAdaSnapKv,
                                           PolicyKind::kAdaPyramidKv, PolicyKind::kFunnel),
                         [](const auto& test) { return std::string(policy_row(test.param).name); });

TEST(Validation, FullChecksPinsToo) {
  EXPECT_EQ(refusal({.kind = PolicyKind::kFull, .pins = {{3, 3}}}), "cache_policy.pins[0]");
}

class WindowPolicyValidation : public ::testing::TestWithParam<PolicyKind> {
 protected:
  std::string field(const std::string& name) {
    return "cache_policy." + std::string(policy_row(GetParam()).name) + "." + name;
  }
};

TEST_P(WindowPolicyValidation, ChecksWindowAndKernel) {
  PolicySpec spec = spec_of(GetParam(), 128);
  for (int32_t window : {0, -3, 8193}) {
    spec.params.window_tokens = window;
    EXPECT_EQ(refusal(spec), field("window_tokens"));
  }
  spec.params.window_tokens = 127;
  EXPECT_EQ(refusal(spec), "accepted");
  spec.params.window_tokens = 128;
  EXPECT_EQ(refusal(spec), "cache_policy.budget.tokens");
  spec.params.window_tokens = 8;
  for (int32_t kernel : {0, -1, 2, 6, 1025, (1 << 30) + 1}) {
    spec.params.kernel_size = kernel;
    EXPECT_EQ(refusal(spec), field("kernel_size"));
  }
  for (int32_t kernel : {1, 1023}) {
    spec.params.kernel_size = kernel;
    EXPECT_EQ(refusal(spec), "accepted");
  }
}

INSTANTIATE_TEST_SUITE_P(Policies, WindowPolicyValidation,
                         ::testing::Values(PolicyKind::kSnapKv, PolicyKind::kPyramidKv, PolicyKind::kAdaSnapKv,
                                           PolicyKind::kAdaPyramidKv));

TEST(Validation, NewestAndFirstEntriesAreCounts) {
  for (const PolicyKind kind : {PolicyKind::kL2Norm, PolicyKind::kKeyDiff, PolicyKind::kRandom}) {
    PolicySpec spec = spec_of(kind, 100);
    spec.params.window_tokens = 0;
    EXPECT_EQ(refusal(spec), "cache_policy." + std::string(policy_row(kind).name) + ".window_tokens");
    spec.params.window_tokens = 100;
    EXPECT_EQ(refusal(spec), "cache_policy.budget.tokens");
  }
  for (const PolicyKind kind : {PolicyKind::kStreamingLlm, PolicyKind::kRandom, PolicyKind::kFunnel}) {
    PolicySpec spec = spec_of(kind, 100);
    spec.params.sink_tokens = -1;
    EXPECT_EQ(refusal(spec), "cache_policy." + std::string(policy_row(kind).name) + ".sink_tokens");
    spec.params.sink_tokens = 0;
    EXPECT_EQ(refusal(spec), "accepted");
    spec.params.sink_tokens = 100;
    EXPECT_EQ(refusal(spec), "cache_policy.budget.tokens");
  }
  PolicySpec random = spec_of(PolicyKind::kRandom, 100);  // both together, which 32 bits do not hold
  random.params.window_tokens = random.params.sink_tokens = std::numeric_limits<int32_t>::max();
  EXPECT_EQ(refusal(random), "cache_policy.budget.tokens");
}

TEST(Validation, H2oNeedsRecentEntriesBelowTheBudget) {
  PolicySpec spec = spec_of(PolicyKind::kH2o, 100);
  for (const int32_t recent : {0, -1}) {
    spec.params.recent_tokens = recent;
    EXPECT_EQ(refusal(spec), "cache_policy.h2o.recent_tokens");
  }
  spec.params.recent_tokens = 99;
  EXPECT_EQ(refusal(spec), "accepted");
  spec.params.recent_tokens = 100;
  EXPECT_EQ(refusal(spec), "cache_policy.budget.tokens");
}

TEST(Validation, PinsNeedOriginalPositions) {
  PolicySpec spec = spec_of(PolicyKind::kStreamingLlm, 100);
  spec.params.position_mode = PositionMode::kCacheRelative;
  EXPECT_EQ(refusal(spec), "accepted");
  spec.pins = {{10, 12}};
  EXPECT_EQ(refusal(spec), "cache_policy.pins");
  spec.params.position_mode = PositionMode::kOriginal;
  EXPECT_EQ(refusal(spec), "accepted");
}

TEST(Validation, PyramidsNeedABetaOfAtLeastOne) {
  PolicySpec spec = spec_of(PolicyKind::kPyramidKv, 128);
  spec.params.beta_millionths = kMillion - 1;
  EXPECT_EQ(refusal(spec), "cache_policy.pyramidkv.beta");
  spec.params.beta_millionths = kMillion;
  EXPECT_EQ(refusal(spec), "accepted");
  spec.kind = PolicyKind::kAdaPyramidKv;
  EXPECT_EQ(refusal(spec), "accepted");
  spec.params.beta_millionths = kMillion - 1;
  EXPECT_EQ(refusal(spec), "cache_policy.ada_pyramidkv.beta");
  spec.kind = PolicyKind::kSnapKv;
  spec.params.beta_millionths = 0;  // no parameter of snapkv
  EXPECT_EQ(refusal(spec), "accepted");
}

TEST(Validation, FunnelByTableNeedsOne) {
  PolicySpec spec = spec_of(PolicyKind::kFunnel, 128);
  EXPECT_EQ(refusal(spec), "accepted");
  for (const int32_t rows : {0, 8193}) {
    spec.params.observed_rows = rows;
    EXPECT_EQ(refusal(spec), "cache_policy.funnel.observed_rows");
  }
  spec.params.observed_rows = 8192;
  EXPECT_EQ(refusal(spec), "accepted");
  spec.lane_table = nullptr;
  EXPECT_EQ(refusal(spec), "cache_policy.funnel.allocation");
  spec.params.funnel_allocation = FunnelAllocation::kGlobal;
  EXPECT_EQ(refusal(spec), "accepted");
  spec = spec_of(PolicyKind::kFunnel, 128);
  spec.params.refit_values = true;
  EXPECT_EQ(refusal(spec), "accepted");
  spec.params.funnel_allocation = FunnelAllocation::kGlobal;
  EXPECT_EQ(refusal(spec), "cache_policy.funnel.refit_values");
}

TEST(Validation, TheFloorOfSharedLayersIsAShare) {
  for (const PolicyKind kind : {PolicyKind::kAdaSnapKv, PolicyKind::kAdaPyramidKv}) {
    PolicySpec spec = spec_of(kind, 128);
    for (const int64_t floor : {-1, 1'000'001}) {
      spec.params.floor_millionths = floor;
      EXPECT_EQ(refusal(spec), "cache_policy." + std::string(policy_row(kind).name) + ".floor");
    }
    for (const int64_t floor : {0, 1'000'000}) {
      spec.params.floor_millionths = floor;
      EXPECT_EQ(refusal(spec), "accepted");
    }
  }
}

}  // namespace
}  // namespace pkv
