// The division of a budget among layers and lanes: the policy's own, with room in every lane for what is always kept
// and none for more than there is.
#include <algorithm>

#include "server/policy/budget.h"
#include "server/policy/planner.h"

namespace pkv {

Planner::LaneBudgets Planner::lane_budgets(int32_t budget, bool even) const {
  const LaneGrid grid{.layers = input_.geometry.layers, .kv_heads = input_.geometry.kv_heads};
  const auto layers = static_cast<size_t>(grid.layers);
  LaneBudgets budgets{.shared = std::vector<int64_t>(layers, 0), .smallest = std::vector<int32_t>(layers, 0)};
  if (even || budget >= span_ || shapeless()) {
    budgets.lanes.assign(grid.lanes(), budget);
    return budgets;
  }
  const int64_t floor = std::min<int64_t>(always_kept(budget), budget);
  const std::vector<LayerTotal> totals = input_.policy.layer_totals(budget, span_, grid);
  if (!totals.empty()) return shared_layers(totals, floor);
  const std::vector<int32_t> floors = input_.policy.shared_floors(budget, span_, grid);
  if (!floors.empty()) return shared_model(floors, budget, floor);
  budgets.lanes = input_.policy.lane_budgets(budget, span_, grid);
  if (!input_.policy.spends_exactly()) return budgets;
  std::vector<int64_t> entries(budgets.lanes.begin(), budgets.lanes.end());
  raise_to_floor(entries, floor);
  cut_to_ceiling(entries, floor, span_);
  std::transform(entries.begin(), entries.end(), budgets.lanes.begin(),
                 [](int64_t n) { return static_cast<int32_t>(n); });
  return budgets;
}

Planner::LaneBudgets Planner::shared_layers(std::span<const LayerTotal> totals, int64_t floor) const {
  const int64_t heads = input_.geometry.kv_heads, prompt = input_.prompt_tokens;
  std::vector<int64_t> entries;
  for (const LayerTotal& total : totals) entries.push_back(total.entries);
  raise_to_floor(entries, heads * floor);
  cut_to_ceiling(entries, heads * floor, heads * span_);
  LaneBudgets budgets;
  for (size_t layer = 0; layer < totals.size(); ++layer) {
    const int64_t part = entries[layer] / heads, over = entries[layer] % heads;
    const bool shared = entries[layer] < heads * prompt;
    const int64_t smallest = std::min(std::max<int64_t>(floor, totals[layer].smallest_lane), part);
    for (int64_t head = 0; head < heads; ++head) {
      const int64_t rest = entries[layer] - (heads - 1) * smallest;  // where the others have least
      const int64_t largest = std::min<int64_t>({totals[layer].largest_lane, prompt, rest});
      const int64_t lane = shared ? std::max(largest, part + (over > 0 ? 1 : 0)) : part + (head < over ? 1 : 0);
      budgets.lanes.push_back(static_cast<int32_t>(lane));
    }
    budgets.shared.push_back(shared ? entries[layer] : 0);
    budgets.smallest.push_back(static_cast<int32_t>(smallest));
  }
  return budgets;
}

Planner::LaneBudgets Planner::shared_model(std::span<const int32_t> floors, int32_t budget, int64_t floor) const {
  const int64_t heads = input_.geometry.kv_heads;
  const int64_t total = int64_t{budget} * heads * static_cast<int64_t>(floors.size());
  LaneBudgets budgets{.shared = std::vector<int64_t>(floors.size(), 0)};
  int64_t free = total;  // beside what is guaranteed
  for (const int32_t wanted : floors) {
    budgets.smallest.push_back(static_cast<int32_t>(std::min<int64_t>(std::max<int64_t>(floor, wanted), budget)));
    free -= heads * budgets.smallest.back();
  }
  const bool shared = budget < input_.prompt_tokens;
  for (const int64_t smallest : budgets.smallest) {
    const int64_t largest = std::min<int64_t>(smallest + free, input_.prompt_tokens);
    budgets.lanes.insert(budgets.lanes.end(), static_cast<size_t>(heads),
                         static_cast<int32_t>(shared ? largest : budget));
  }
  budgets.model = shared ? total : 0;
  return budgets;
}

}  // namespace pkv
