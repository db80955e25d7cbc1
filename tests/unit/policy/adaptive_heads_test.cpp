// ada_snapkv and ada_pyramidkv: what a layer's heads get of its entries, and which they keep, against the rule of
// docs/policies.md written down once more.
#include <algorithm>
#include <numeric>
#include <random>

#include "gmock/gmock.h"
#include "tests/support/tested_backend.h"
#include "tests/unit/policy/policy_specs.h"
#include "tests/unit/policy/prompt_run.h"
#include "tests/unit/policy/scored_layer.h"

namespace pkv {
namespace {

constexpr PolicyKind kAdaptive[] = {PolicyKind::kAdaSnapKv, PolicyKind::kAdaPyramidKv};

TEST(AdaptiveTotals, AreTheLayersOfTheirRivals) {
  const LaneGrid grid{.layers = 5, .kv_heads = 3};
  for (const auto& [adaptive, rival] : {std::pair(PolicyKind::kAdaSnapKv, PolicyKind::kSnapKv),
                                        std::pair(PolicyKind::kAdaPyramidKv, PolicyKind::kPyramidKv)}) {
    const std::vector<int32_t> layers = policy_of(spec_of(rival, 50))->layer_budgets(50, 400, grid.layers);
    const std::vector<LayerTotal> totals = policy_of(spec_of(adaptive, 50))->layer_totals(50, 400, grid);
    ASSERT_EQ(totals.size(), layers.size());
    for (size_t layer = 0; layer < layers.size(); ++layer) {
      EXPECT_EQ(totals[layer].entries, 3 * layers[layer]);
      EXPECT_EQ(totals[layer].smallest_lane, 8 + (layers[layer] - 8) / 5);  // W and a fifth, rounded down
      EXPECT_EQ(totals[layer].largest_lane, 400);
    }
  }
}

TEST(AdaptiveTotals, AFloorOfOneSharesNothing) {
  PolicySpec spec = spec_of(PolicyKind::kAdaSnapKv, 50);
  spec.params.floor_millionths = kMillion;
  const LayerTotal total = policy_of(spec)->layer_totals(50, 400, {.layers = 1, .kv_heads = 3})[0];
  EXPECT_EQ(total.smallest_lane, 50);
  EXPECT_EQ(total.entries, 150);
}

TEST(AdaptiveTotals, ARecallIsOfEveryHeadByItself) {
  PolicySpec spec = spec_of(PolicyKind::kAdaSnapKv, 0);
  spec.budget = {.kind = BudgetKind::kMinRecall, .min_recall_millionths = 900'000};
  const Planned plan = planned(
      spec,
      {.geometry = {.layers = 2, .kv_heads = 3, .head_dim = 8, .page_bytes = 128}, .q_heads = 3, .prompt_tokens = 100});
  EXPECT_FALSE(plan.plan.shares(0) || plan.plan.shares(1));
}

// ---- selections

// Pooled window scores of a lane's entries before the window.
std::vector<float> pooled_scores(const LayerInput& layer, int32_t kv_head, int32_t window, int32_t kernel) {
  const int32_t past = layer.tokens - window, group = layer.q_heads / layer.kv_heads;
  std::vector<double> mass(static_cast<size_t>(past), 0.0);
  for (int32_t row = past; row < layer.tokens; ++row) {
    for (int32_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
      const std::vector<double> weights = attention(layer, row, head);
      for (size_t slot = 0; slot < mass.size(); ++slot) mass[slot] += weights[slot] / group;
    }
  }
  std::vector<float> pooled;
  for (int32_t slot = 0; slot < past; ++slot) {
    const auto first = mass.begin() + std::max(0, slot - kernel / 2);
    const auto end = mass.begin() + std::min(past, slot + kernel / 2 + 1);
    pooled.push_back(static_cast<float>(*std::max_element(first, end)));
  }
  return pooled;
}

// Every head its `own` best entries, then the best of all heads, `total` in all; score descending, then lower head,
// then smaller position.
std::vector<std::vector<int32_t>> plain_selection(const LayerInput& layer, int32_t total, int32_t own, int32_t window) {
  struct Entry {
    float score;
    int32_t head, position;
  };
  const auto better = [](const Entry& a, const Entry& b) { return a.score > b.score; };
  std::vector<std::vector<int32_t>> kept(static_cast<size_t>(layer.kv_heads));
  std::vector<Entry> rest;
  for (int32_t head = 0; head < layer.kv_heads; ++head) {
    std::vector<Entry> entries;
    const std::vector<float> scores = pooled_scores(layer, head, window, 7);
    for (size_t slot = 0; slot < scores.size(); ++slot) {
      entries.push_back({scores[slot], head, static_cast<int32_t>(slot)});
    }
    std::stable_sort(entries.begin(), entries.end(), better);
    for (size_t i = 0; i < entries.size(); ++i) {
      if (static_cast<int32_t>(i) < own - window) {
        kept[static_cast<size_t>(head)].push_back(entries[i].position);
      } else {
        rest.push_back(entries[i]);
      }
    }
    for (int32_t slot = layer.tokens - window; slot < layer.tokens; ++slot) {
      kept[static_cast<size_t>(head)].push_back(slot);
    }
  }
  std::stable_sort(rest.begin(), rest.end(), better);
  const int32_t shared = total - layer.kv_heads * own;
  for (int32_t i = 0; i < shared; ++i) {
    const Entry& entry = rest[static_cast<size_t>(i)];
    kept[static_cast<size_t>(entry.head)].push_back(entry.position);
  }
  for (std::vector<int32_t>& lane : kept) std::sort(lane.begin(), lane.end());
  return kept;
}

TEST(AdaptiveSelection, EqualsAPlainOne) {
  std::mt19937 random(31);
  const std::unique_ptr<Backend> backend = test::make_tested_backend();
  int uneven = 0;
  for (int round = 0; round < 40; ++round) {
    LayerInput input = random_layer(random);
    if (input.tokens < 30) continue;
    const int32_t group_width = input.q_heads / input.kv_heads * input.head_dim;
    // The first head looks at nothing in particular, so its scores are flat and low.
    for (size_t at = 0; at < input.q.size(); ++at) {
      if (static_cast<int32_t>(at) % (input.q_heads * input.head_dim) < group_width) input.q[at] *= 0.05f;
    }
    const CacheGeometry geometry{
        .layers = 1, .kv_heads = input.kv_heads, .head_dim = input.head_dim, .page_bytes = 64 * 5};
    const int32_t budget = 13 + round % 8;
    PolicySpec spec = spec_of(kAdaptive[round % 2], budget);
    spec.params.floor_millionths = round % 3 * 200'000;
    const Planned plan =
        planned(spec, {.geometry = geometry, .q_heads = input.q_heads, .prompt_tokens = input.tokens, .max_tokens = 1});
    auto cache = KvCache::create(*backend, geometry, uint64_t{1} << 22);
    ASSERT_TRUE(cache.ok());
    PromptRun prompt(*backend, **cache, plan,
                     {.geometry = geometry, .q_heads = input.q_heads, .prompt_tokens = input.tokens});
    const LayerOutcome outcome = prompt.run_layer(0, {.q = input.q, .k = input.k, .v = input.k}, 16);
    const auto own = static_cast<int32_t>(8 + (budget - 8) * spec.params.floor_millionths / kMillion);
    EXPECT_EQ(outcome.kept_positions, plain_selection(input, budget * input.kv_heads, own, 8)) << round;
    EXPECT_EQ(std::accumulate(outcome.kept.begin(), outcome.kept.end(), 0), budget * input.kv_heads);
    for (const int32_t kept : outcome.kept) EXPECT_GE(kept, own);
    uneven += outcome.kept.front() < budget ? 1 : 0;
  }
  EXPECT_GT(uneven, 5);
}

}  // namespace
}  // namespace pkv
