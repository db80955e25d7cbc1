// What a budget comes to in entries and bytes, before a token is read: by hand for the default model.
#include "server/policy/cache_plan.h"

#include <numeric>

#include "gmock/gmock.h"
#include "tests/unit/policy/policy_specs.h"

namespace pkv {
namespace {

using ::testing::Each;
using ::testing::HasSubstr;

constexpr CacheGeometry kDefaultModel{.layers = 30, .kv_heads = 3, .head_dim = 64};

Lengths default_lengths(int32_t prompt, int32_t max_tokens) {
  return {.geometry = kDefaultModel, .q_heads = 9, .prompt_tokens = prompt, .max_tokens = max_tokens};
}

std::string refusal(const PolicySpec& spec, const Lengths& lengths) {
  const auto policy = policy_of(spec);
  const auto plan = plan_cache(plan_input(*policy, spec, lengths));
  return plan.ok() ? "" : std::string(plan.status().message());
}

int64_t sum(const std::vector<int32_t>& lanes) { return std::accumulate(lanes.begin(), lanes.end(), int64_t{0}); }

// PyramidKV at 128 and a prompt of 8,000 tokens, by hand.
TEST(CachePlan, PyramidOfTheDefaultModel) {
  const CachePlan plan = planned(spec_of(PolicyKind::kPyramidKv, 128), default_lengths(8000, 1)).plan;
  // Pages of 16 slots for 242 234 226 218 211 203 195 187 179 171 163 156 148 140 132 124 116 108 100 93 85 77 69 61 53
  // 45 38 30 22 14 entries; the peak is before the last layer is cut: 500 pages a head for its 8,000 entries.
  const uint64_t kept_pages = 16 + 15 + 15 + 14 + 14 + 13 + 13 + 12 + 12 + 11 + 11 + 10 + 10 + 9 + 9 + 8 + 8 + 7 + 7 +
                              6 + 6 + 5 + 5 + 4 + 4 + 3 + 3 + 2 + 2 + 1;
  EXPECT_EQ(plan.footprint.steady_pages, 3 * kept_pages);
  EXPECT_EQ(plan.footprint.peak_pages, 3 * (kept_pages - 1 + 500));
  EXPECT_EQ(plan.footprint.peak_bytes, plan.footprint.peak_pages * (4096 + 4 * 16 + 4));
  EXPECT_EQ(sum(plan.lane_budgets), 128 * 90);
  EXPECT_EQ(plan.state_bytes, 0u);
  EXPECT_EQ(plan.smallest_budget_tokens, 9);
}

TEST(CachePlan, TheLastGeneratedTokenIsNeverWritten) {
  const auto steady = [&](int32_t max_tokens) {
    return planned({}, {.geometry = {.layers = 2, .kv_heads = 1, .head_dim = 64},
                        .prompt_tokens = 16,
                        .max_tokens = max_tokens})
        .plan.footprint.steady_pages;
  };
  EXPECT_EQ(steady(0), 2u);
  EXPECT_EQ(steady(1), 2u);
  EXPECT_EQ(steady(2), 4u);
  EXPECT_EQ(steady(17), 4u);
  EXPECT_EQ(steady(18), 6u);
}

TEST(CachePlan, ScopeTotalFixesCapsForPromptAndAnswer) {
  PolicySpec spec = spec_of(PolicyKind::kPyramidKv, 128);
  spec.budget.scope = BudgetScope::kTotal;
  const CachePlan whole = planned(spec_of(PolicyKind::kPyramidKv, 128), default_lengths(8192, 1)).plan;
  const CachePlan total = planned(spec, default_lengths(192, 8000)).plan;
  EXPECT_EQ(total.lane_limits, whole.lane_budgets);  // n = 192 + 8000
  for (size_t lane = 0; lane < total.lane_limits.size(); ++lane) {
    EXPECT_EQ(total.lane_budgets[lane], std::min(192, total.lane_limits[lane]));
  }
  EXPECT_TRUE(total.evicts_while_generating);
  EXPECT_GT(total.state_bytes, 0u);
  // Enough for prompt and answer: nothing is ever evicted, and nothing has to be known for it.
  spec.budget.tokens = 8192;
  const CachePlan all = planned(spec, default_lengths(192, 8000)).plan;
  EXPECT_FALSE(all.compresses || all.evicts_while_generating);
  EXPECT_EQ(all.state_bytes, 0u);
}

TEST(CachePlan, RatiosAreOfTheTokensThatTheBudgetIsFor) {
  PolicySpec spec = spec_of_ratio(PolicyKind::kSnapKv, 100'000);
  EXPECT_EQ(planned(spec, default_lengths(1001, 500)).plan.budget_tokens, 101);
  spec.budget.scope = BudgetScope::kTotal;
  EXPECT_EQ(planned(spec, default_lengths(1001, 500)).plan.budget_tokens, 151);
  // Raised on short prompts to what is always kept and one more; with pins in the prompt, those too.
  spec.budget.scope = BudgetScope::kPrompt;
  EXPECT_EQ(planned(spec, default_lengths(40, 5)).plan.budget_tokens, 9);
  spec.pins = {{3, 8}, {6, 10}};
  EXPECT_EQ(planned(spec, default_lengths(40, 5)).plan.budget_tokens, 8 + 7 + 1);
}

TEST(CachePlan, PinsRaiseLayersAndOthersPayForIt) {
  PolicySpec spec = spec_of(PolicyKind::kPyramidKv, 128);
  spec.pins = {{100, 140}};
  const CachePlan plan = planned(spec, default_lengths(2000, 5)).plan;
  EXPECT_EQ(sum(plan.lane_budgets), 128 * 90);
  EXPECT_EQ(*std::min_element(plan.lane_budgets.begin(), plan.lane_budgets.end()), 48);
  EXPECT_TRUE(std::is_sorted(plan.lane_budgets.rbegin(), plan.lane_budgets.rend()));

  spec.budget.tokens = 47;
  EXPECT_THAT(refusal(spec, default_lengths(2000, 5)), HasSubstr("cache_policy.budget.tokens: "));
  spec.budget.tokens = 48;
  EXPECT_THAT(planned(spec, default_lengths(2000, 5)).plan.lane_budgets, Each(48));
  spec.budget.tokens = 128;
  spec.params.allocation = PyramidAllocation::kFactory;
  EXPECT_THAT(refusal(spec, default_lengths(2000, 5)), HasSubstr("cache_policy.pins: layer "));
  EXPECT_THAT(refusal(spec, default_lengths(139, 5)), HasSubstr("cache_policy.pins[0].end: "));
}

TEST(CachePlan, SinksAndPinsAreCountedOnce) {
  PolicySpec spec = spec_of(PolicyKind::kRandom, 40);
  spec.pins = {{2, 6}, {20, 25}, {22, 23}};
  const CachePlan plan = planned(spec, default_lengths(500, 5)).plan;
  ASSERT_EQ(plan.kept_spans.size(), 2u);
  EXPECT_EQ(plan.kept_spans[0].begin, 0);
  EXPECT_EQ(plan.kept_spans[0].end, 6);
  EXPECT_EQ(plan.smallest_budget_tokens, 8 + 6 + 5);
}

TEST(CachePlan, H2oKeepsHalfOfWhateverTheBudgetIs) {
  const CachePlan plan = planned(spec_of(PolicyKind::kH2o, 33), default_lengths(500, 5)).plan;
  EXPECT_EQ(plan.window_tokens, 16);
  EXPECT_EQ(plan.smallest_budget_tokens, 2);
  PolicySpec recall{.kind = PolicyKind::kH2o,
                    .budget = {.kind = BudgetKind::kMinRecall, .min_recall_millionths = 900'000}};
  EXPECT_THAT(refusal(recall, default_lengths(500, 5)), HasSubstr("cache_policy.h2o.recent_tokens: "));
  recall.params.recent_tokens = 10;
  EXPECT_EQ(planned(recall, default_lengths(500, 5)).plan.window_tokens, 10);
}

TEST(CachePlan, MinRecallReservesItsCeiling) {
  PolicySpec spec{.kind = PolicyKind::kPyramidKv,
                  .budget = {.kind = BudgetKind::kMinRecall, .min_recall_millionths = 900'000}};
  const CachePlan free = planned(spec, default_lengths(1000, 100)).plan;
  EXPECT_THAT(free.lane_budgets, Each(1000));
  EXPECT_TRUE(free.compresses);
  spec.budget.max_bytes = uint64_t{8} << 20;
  const CachePlan bounded = planned(spec, default_lengths(1000, 100)).plan;
  EXPECT_THAT(bounded.lane_budgets, Each(bounded.budget_tokens));  // no pyramid
  EXPECT_LT(bounded.budget_tokens, 1000);
  EXPECT_LE(bounded.footprint.peak_bytes, spec.budget.max_bytes);
}

}  // namespace
}  // namespace pkv
