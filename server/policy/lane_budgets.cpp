// The division of a budget among layers and lanes.
#include "server/policy/lane_budgets.h"

#include <algorithm>
#include <span>
#include <utility>

#include "kernels/check.h"
#include "server/policy/budget.h"

namespace pkv {
namespace {

LaneBudgets without_sharing(const LaneBudgetInput& input, std::vector<int32_t> lanes) {
  const auto layers = static_cast<size_t>(input.layers);
  return {.lanes = std::move(lanes),
          .shared = std::vector<int64_t>(layers, 0),
          .smallest = std::vector<int32_t>(layers, 0)};
}

std::vector<int32_t> fixed_lanes(const LaneBudgetInput& input) {
  std::vector<int32_t> lanes =
      input.policy.lane_budgets(input.budget, input.tokens, {.layers = input.layers, .kv_heads = input.kv_heads});
  if (!input.policy.spends_exactly()) return lanes;
  std::vector<int64_t> entries(lanes.begin(), lanes.end());
  raise_to_floor(entries, input.floor);
  cut_to_ceiling(entries, input.floor, input.tokens);
  std::transform(entries.begin(), entries.end(), lanes.begin(), [](int64_t n) { return static_cast<int32_t>(n); });
  return lanes;
}

LaneBudgets shared_layers(const LaneBudgetInput& input, std::span<const LayerTotal> totals) {
  const int64_t heads = input.kv_heads;
  std::vector<int64_t> entries;
  for (const LayerTotal& total : totals) entries.push_back(total.entries);
  raise_to_floor(entries, heads * input.floor);
  cut_to_ceiling(entries, heads * input.floor, heads * input.tokens);
  LaneBudgets budgets;
  for (size_t layer = 0; layer < totals.size(); ++layer) {
    const int64_t part = entries[layer] / heads, over = entries[layer] % heads;
    const bool shared = entries[layer] < heads * input.prompt_tokens;
    const int64_t smallest = std::min<int64_t>(std::max(input.floor, totals[layer].smallest_lane), part);
    for (int64_t head = 0; head < heads; ++head) {
      const int64_t rest = entries[layer] - (heads - 1) * smallest;  // where the others have least
      const int64_t largest = std::min<int64_t>({totals[layer].largest_lane, input.prompt_tokens, rest});
      const int64_t lane = shared ? std::max(largest, part + (over > 0 ? 1 : 0)) : part + (head < over ? 1 : 0);
      budgets.lanes.push_back(static_cast<int32_t>(lane));
    }
    budgets.shared.push_back(shared ? entries[layer] : 0);
    budgets.smallest.push_back(static_cast<int32_t>(smallest));
  }
  return budgets;
}

}  // namespace

LaneBudgets divide_budget(const LaneBudgetInput& input) {
  const LaneGrid grid{.layers = input.layers, .kv_heads = input.kv_heads};
  if (input.even) return without_sharing(input, std::vector<int32_t>(grid.lanes(), input.budget));
  const std::vector<LayerTotal> totals = input.policy.layer_totals(input.budget, input.tokens, grid);
  if (!totals.empty()) return shared_layers(input, totals);
  return without_sharing(input, fixed_lanes(input));
}

}  // namespace pkv
