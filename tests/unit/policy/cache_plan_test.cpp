// What a budget comes to in entries and bytes, before a token is read: by hand for the default model, and against a
// search through every budget.
#include "server/policy/cache_plan.h"

#include <numeric>
#include <random>

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

class RandomPlans : public ::testing::Test {
 protected:
  int32_t between(int32_t low, int32_t high) {
    return low + static_cast<int32_t>(random_() % static_cast<uint32_t>(high - low + 1));
  }
  Lengths draw_lengths() {
    const int32_t heads = between(1, 3);
    return {.geometry = {.layers = between(1, 6), .kv_heads = heads, .head_dim = 8, .page_bytes = 64 * between(1, 4)},
            .q_heads = heads * between(1, 3),
            .prompt_tokens = between(1, 120),
            .max_tokens = between(0, 60)};
  }
  PolicySpec draw_spec() {
    const auto kind = policy_table()[static_cast<size_t>(between(1, 8))].kind;
    PolicySpec spec = spec_of(kind, between(16, 140));
    spec.budget.scope = between(0, 1) == 0 ? BudgetScope::kPrompt : BudgetScope::kTotal;
    if (between(0, 3) == 0) spec.params.allocation = PyramidAllocation::kFactory;
    return spec;
  }
  // The smallest budget in tokens that the spec's validation accepts.
  static int32_t always_kept_and_one(const PolicySpec& spec) {
    int32_t tokens = 1;
    while (!make_policy(spec_of(spec.kind, tokens)).ok()) ++tokens;
    return tokens;
  }
  std::mt19937 random_{3};
};

TEST_F(RandomPlans, LanesHoldTheWindowAndStayWithinTheirLimits) {
  for (int round = 0; round < 2000; ++round) {
    const Lengths lengths = draw_lengths();
    const PolicySpec spec = draw_spec();
    const CachePlan plan = planned(spec, lengths).plan;
    const int32_t written = lengths.prompt_tokens + std::max(0, lengths.max_tokens - 1);
    const int32_t tokens = lengths.prompt_tokens + (spec.budget.scope == BudgetScope::kTotal ? lengths.max_tokens : 0);
    for (size_t lane = 0; lane < plan.lane_budgets.size(); ++lane) {
      ASSERT_GE(plan.lane_budgets[lane], std::min(lengths.prompt_tokens, plan.window_tokens));
      ASSERT_LE(plan.lane_budgets[lane], lengths.prompt_tokens);
      ASSERT_LE(plan.lane_limits[lane], written);
      ASSERT_GE(plan.lane_limits[lane], plan.lane_budgets[lane]);
    }
    if (spec.params.allocation == PyramidAllocation::kExact && spec.budget.scope == BudgetScope::kPrompt) {
      ASSERT_EQ(sum(plan.lane_budgets),
                int64_t{std::min(plan.budget_tokens, tokens)} * static_cast<int64_t>(plan.lane_budgets.size()));
    }
    ASSERT_EQ(plan.compresses,
              plan.lane_budgets != std::vector<int32_t>(plan.lane_budgets.size(), lengths.prompt_tokens));
  }
}

TEST_F(RandomPlans, BytesBuyTheLargestBudgetThereIs) {
  int limited = 0;
  for (int round = 0; round < 300; ++round) {
    const Lengths lengths = draw_lengths();
    PolicySpec spec = draw_spec();
    const auto peak_at = [&](int32_t tokens) {
      PolicySpec other = spec;
      other.budget.kind = BudgetKind::kTokens;
      other.budget.tokens = tokens;
      return planned(other, lengths).plan.footprint.peak_bytes;
    };
    const int32_t tokens = lengths.prompt_tokens + (spec.budget.scope == BudgetScope::kTotal ? lengths.max_tokens : 0);
    const int32_t least = always_kept_and_one(spec);
    if (least >= tokens) continue;
    std::vector<uint64_t> peaks;
    for (int32_t budget = least; budget <= tokens; ++budget) peaks.push_back(peak_at(budget));
    const uint64_t smallest = std::min(peaks.front(), peaks.back());
    spec.budget.kind = BudgetKind::kBytes;
    spec.budget.bytes = smallest + random_() % (peaks.back() - smallest + 1);
    int32_t best = 0;
    for (int32_t budget = least; budget <= tokens; ++budget) {
      if (peaks[static_cast<size_t>(budget - least)] <= spec.budget.bytes) best = budget;
    }
    const CachePlan plan = planned(spec, lengths).plan;
    ASSERT_TRUE(plan.within_budget);
    ASSERT_EQ(plan.budget_tokens, best) << round;
    ASSERT_LE(plan.footprint.peak_bytes, spec.budget.bytes);
    ASSERT_EQ(plan.smallest_budget_bytes, smallest);
    limited += best < tokens ? 1 : 0;

    spec.budget.bytes = smallest - 1;
    const CachePlan infeasible = planned(spec, lengths).plan;
    ASSERT_FALSE(infeasible.within_budget);
    ASSERT_EQ(infeasible.smallest_budget_bytes, smallest);
  }
  EXPECT_GT(limited, 100);
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
