// The plan of one request at one budget.
#include "server/policy/planner.h"

#include "absl/strings/str_cat.h"
#include "server/policy/cache_relative.h"
#include "server/policy/evictor.h"
#include "server/status/field_error.h"

namespace pkv {

absl::Status Planner::check_room(int32_t budget) const {
  if (spends_exactly()) return absl::OkStatus();  // lanes above the floor lend
  const std::vector<int32_t> lanes = lane_budgets(budget, /*even=*/false).lanes;
  const auto least = std::min_element(lanes.begin(), lanes.end());
  if (budget >= span_ || *least >= always_kept(budget)) return absl::OkStatus();
  return field_error("cache_policy.pins",
                     absl::StrCat("layer ", (least - lanes.begin()) / input_.geometry.kv_heads, " has ", *least,
                                  " entries, fewer than the ", always_kept(budget), " of window, sinks and pins"));
}

CachePlan Planner::at(int32_t budget, bool even) const {
  const int32_t prompt = input_.prompt_tokens;
  const int32_t growth = std::max(0, input_.max_tokens - 1);  // the last generated token is never written
  CachePlan plan{.kv_dtype = input_.spec.kv_dtype,
                 .budget_tokens = std::min(budget, span_),
                 .window_tokens = input_.policy.window_tokens(budget),
                 .kept_spans = spans_};
  const LaneBudgets budgets = lane_budgets(plan.budget_tokens, even);
  for (const int32_t entries : budgets.lanes) {
    const int32_t kept = std::min(entries, prompt);
    const int32_t limit = total_ ? std::min(entries, prompt + growth) : kept + growth;
    plan.lane_budgets.push_back(kept);
    plan.lane_limits.push_back(limit);
    plan.compresses |= kept < prompt || (shapeless() && prompt > always_kept(budget));
    plan.evicts_while_generating |= limit < prompt + growth && total_;
  }
  if (std::any_of(budgets.shared.begin(), budgets.shared.end(), [](int64_t entries) { return entries > 0; })) {
    plan.smallest_lanes = budgets.smallest;
    for (const int64_t entries : budgets.shared) {
      const int64_t grown = total_ || entries == 0 ? 0 : int64_t{growth} * input_.geometry.kv_heads;
      plan.shared_budgets.push_back(entries);
      plan.shared_limits.push_back(entries + grown);
    }
    plan.compresses = true;
    plan.evicts_while_generating |= total_;
  }
  if (budgets.model > 0) {
    plan.smallest_lanes = budgets.smallest;
    plan.model_budget = plan.model_limit = budgets.model;
    if (!total_) plan.model_limit += int64_t{growth} * static_cast<int64_t>(budgets.lanes.size());
    plan.compresses = true;
    plan.evicts_while_generating |= total_;
  }
  if (plan.evicts_while_generating) {
    plan.state_bytes +=
        Evictor::state_bytes(input_.policy, plan, {.geometry = input_.geometry, .q_heads = input_.q_heads});
  }
  plan.cache_relative = plan.drops_entries() && input_.policy.cache_relative();
  if (plan.cache_relative) {
    plan.state_bytes += CacheRelative::state_bytes(input_.geometry, input_.policy.sink_tokens());
  }
  plan.positions_used = int64_t{prompt} + input_.max_tokens;
  if (input_.policy.cache_relative()) {
    const int32_t held = *std::max_element(plan.lane_limits.begin(), plan.lane_limits.end());
    plan.positions_used = std::min<int64_t>(plan.positions_used, std::max(prompt, held));
  }
  plan.footprint = cache_footprint(input_.geometry, prompt, plan);
  return plan;
}

}  // namespace pkv
