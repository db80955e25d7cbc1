// What holds for every plan, over random lengths and budgets and any division of a budget among lanes: what lanes hold,
// and that bytes buy the largest budget there is, against a search through every budget.
#include <numeric>
#include <random>

#include "gmock/gmock.h"
#include "server/policy/cache_plan.h"
#include "tests/unit/policy/policy_specs.h"

namespace pkv {
namespace {

using test::LaneShape;

int32_t tokens_of(const PolicySpec& spec, const Lengths& lengths) {
  return lengths.prompt_tokens + (spec.budget.scope == BudgetScope::kTotal ? lengths.max_tokens : 0);
}

// Entries of all lanes of a layer.
int64_t layer_entries(const std::vector<int32_t>& lanes, const std::vector<int64_t>& shared, int32_t layer,
                      int32_t heads) {
  if (!shared.empty() && shared[static_cast<size_t>(layer)] > 0) return shared[static_cast<size_t>(layer)];
  const auto first = lanes.begin() + std::ptrdiff_t{layer} * heads;
  return std::accumulate(first, first + heads, int64_t{0});
}

class RandomPlans : public ::testing::TestWithParam<LaneShape> {
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
    const auto kind =
        policy_table()[static_cast<size_t>(between(1, static_cast<int32_t>(policy_table().size()) - 1))].kind;
    PolicySpec spec = spec_of(kind, between(16, 140));
    spec.budget.scope = between(0, 1) == 0 ? BudgetScope::kPrompt : BudgetScope::kTotal;
    if (between(0, 3) == 0 && kind == PolicyKind::kPyramidKv) spec.params.allocation = PyramidAllocation::kFactory;
    if (between(0, 1) == 0) spec.params.funnel_allocation = FunnelAllocation::kGlobal;
    return spec;
  }
  CachePlan plan(const PolicySpec& spec, const Lengths& lengths) const {
    return planned(spec, lengths, GetParam()).plan;
  }
  bool spends_exactly(const PolicySpec& spec) const {
    return GetParam() != LaneShape::kOwn || spec.params.allocation == PyramidAllocation::kExact;
  }
  // The smallest budget in tokens that the spec's validation accepts.
  static int32_t always_kept_and_one(const PolicySpec& spec) {
    int32_t tokens = 1;
    while (!make_policy(spec_of(spec.kind, tokens)).ok()) ++tokens;
    return tokens;
  }
  std::mt19937 random_{3};
};

TEST_P(RandomPlans, LanesHoldTheWindowAndStayWithinTheirLimits) {
  int64_t uneven = 0, shared = 0, shared_models = 0;
  for (int round = 0; round < 2000; ++round) {
    const Lengths lengths = draw_lengths();
    const PolicySpec spec = draw_spec();
    const CachePlan plan = this->plan(spec, lengths);
    const int32_t written = lengths.prompt_tokens + std::max(0, lengths.max_tokens - 1);
    const int32_t heads = lengths.geometry.kv_heads;
    for (size_t lane = 0; lane < plan.lane_budgets.size(); ++lane) {
      ASSERT_GE(plan.lane_budgets[lane], std::min(lengths.prompt_tokens, plan.window_tokens));
      ASSERT_LE(plan.lane_budgets[lane], lengths.prompt_tokens);
      ASSERT_LE(plan.lane_limits[lane], written);
      ASSERT_GE(plan.lane_limits[lane], plan.lane_budgets[lane]);
      uneven += plan.lane_budgets[lane] != plan.lane_budgets[lane - lane % static_cast<size_t>(heads)] ? 1 : 0;
    }
    int64_t kept = 0, limits = 0;
    for (int32_t layer = 0; layer < lengths.geometry.layers; ++layer) {
      kept += layer_entries(plan.lane_budgets, plan.shared_budgets, layer, heads);
      limits += layer_entries(plan.lane_limits, plan.shared_limits, layer, heads);
      if (!plan.shares(layer)) continue;
      ++shared;
      const int64_t entries = plan.shared_budgets[static_cast<size_t>(layer)];
      const int32_t most = plan.lane_budgets[static_cast<size_t>(layer * heads)];
      ASSERT_LE(entries, int64_t{most} * heads);
      const int32_t smallest = plan.smallest_lanes[static_cast<size_t>(layer)];
      ASSERT_GE(entries, int64_t{smallest} * heads);
      ASSERT_LT(entries, int64_t{lengths.prompt_tokens} * heads);
      ASSERT_GE(smallest, std::max(1, plan.window_tokens));
      ASSERT_LE(smallest, most);
    }
    const int64_t all = int64_t{plan.budget_tokens} * static_cast<int64_t>(plan.lane_budgets.size());
    if (plan.shares_model()) {
      ++shared_models;
      ASSERT_GE(kept, plan.model_budget);
      ASSERT_GE(limits, plan.model_limit);
      kept = plan.model_budget;
      limits = plan.model_limit;
      int64_t sure = 0;
      for (size_t lane = 0; lane < plan.lane_budgets.size(); ++lane) {
        const int32_t smallest = plan.smallest_lanes[lane / static_cast<size_t>(heads)];
        ASSERT_GE(smallest, std::max(1, plan.window_tokens));
        ASSERT_LE(smallest, plan.lane_budgets[lane]);
        sure += smallest;
      }
      ASSERT_LE(sure, plan.model_budget);
    }
    if (spends_exactly(spec) && spec.budget.scope == BudgetScope::kPrompt) {
      ASSERT_EQ(kept, all);
    } else if (spends_exactly(spec)) {
      ASSERT_LE(limits, all);  // less where a lane has room for the last token, which is never written
    }
    ASSERT_EQ(plan.compresses, kept < int64_t{lengths.prompt_tokens} * static_cast<int64_t>(plan.lane_budgets.size()));
    ASSERT_EQ(plan.evicts_while_generating,
              spec.budget.scope == BudgetScope::kTotal &&
                  limits < int64_t{written} * static_cast<int64_t>(plan.lane_limits.size()));
  }
  EXPECT_EQ(uneven > 100, GetParam() != LaneShape::kTotals);  // of funnel's own table, too
  EXPECT_EQ(shared > 100, GetParam() == LaneShape::kTotals || GetParam() == LaneShape::kOwn);
  EXPECT_EQ(shared_models > 20, GetParam() == LaneShape::kOwn);
}

TEST_P(RandomPlans, BytesBuyTheLargestBudgetThereIs) {
  int limited = 0;
  for (int round = 0; round < 80; ++round) {
    const Lengths lengths = draw_lengths();
    PolicySpec spec = draw_spec();
    const auto peak_at = [&](int32_t tokens) {
      PolicySpec other = spec;
      other.budget.kind = BudgetKind::kTokens;
      other.budget.tokens = tokens;
      return plan(other, lengths).footprint.peak_bytes;
    };
    const int32_t tokens = tokens_of(spec, lengths);
    const int32_t least = always_kept_and_one(spec);
    if (least >= tokens) continue;
    std::vector<uint64_t> peaks;
    for (int32_t budget = least; budget <= tokens; ++budget) peaks.push_back(peak_at(budget));
    const uint64_t smallest = *std::min_element(peaks.begin(), peaks.end());
    spec.budget.kind = BudgetKind::kBytes;
    spec.budget.bytes = smallest + random_() % (peaks.back() - smallest + 1);
    int32_t best = 0;
    for (int32_t budget = least; budget <= tokens; ++budget) {
      if (peaks[static_cast<size_t>(budget - least)] <= spec.budget.bytes) best = budget;
    }
    const CachePlan bought = plan(spec, lengths);
    ASSERT_TRUE(bought.within_budget);
    ASSERT_EQ(bought.budget_tokens, best) << round;
    ASSERT_LE(bought.footprint.peak_bytes, spec.budget.bytes);
    ASSERT_EQ(bought.smallest_budget_bytes, smallest);
    limited += best < tokens ? 1 : 0;

    spec.budget.bytes = smallest - 1;
    const CachePlan infeasible = plan(spec, lengths);
    ASSERT_FALSE(infeasible.within_budget);
    ASSERT_EQ(infeasible.smallest_budget_bytes, smallest);
  }
  EXPECT_GT(limited, 25);
}

// Pins and sinks are paid for by the lanes above them, whatever these are.
TEST_P(RandomPlans, EveryLaneHasRoomForWhatIsAlwaysKept) {
  int pinned = 0;
  for (int round = 0; round < 1000; ++round) {
    const Lengths lengths = draw_lengths();
    PolicySpec spec = draw_spec();
    if (!spends_exactly(spec) || lengths.prompt_tokens < 4) continue;
    const int32_t begin = between(0, lengths.prompt_tokens - 2);
    spec.pins = {{begin, between(begin + 1, std::min(lengths.prompt_tokens, begin + 9))}};
    const auto policy = test::make_shaped_policy(spec, GetParam());
    if (!policy.ok()) continue;  // positions relative to the cache
    const auto plan = plan_cache(plan_input(**policy, spec, lengths));
    if (!plan.ok()) continue;  // a budget below what is always kept
    int32_t always = std::max(1, plan->window_tokens);
    for (const TokenSpan& span : plan->kept_spans) always += span.end - span.begin;
    const int32_t written = lengths.prompt_tokens + std::max(0, lengths.max_tokens - 1);
    for (size_t lane = 0; lane < plan->lane_limits.size(); ++lane) {
      ASSERT_GE(plan->lane_budgets[lane], std::min(lengths.prompt_tokens, always));
      ASSERT_GE(plan->lane_limits[lane], std::min(written, always));
    }
    for (int32_t layer = 0; layer < lengths.geometry.layers; ++layer) {
      if (!plan->shares(layer) && !plan->shares_model()) continue;
      ASSERT_GE(plan->smallest_lanes[static_cast<size_t>(layer)], always);
    }
    ++pinned;
  }
  EXPECT_GT(pinned, 300);
}

INSTANTIATE_TEST_SUITE_P(Shapes, RandomPlans, ::testing::ValuesIn(test::kLaneShapes),
                         [](const auto& shape) { return test::name_of(shape.param); });

}  // namespace
}  // namespace pkv
