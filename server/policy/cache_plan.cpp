// Resolves what a request asks for, tokens, a ratio, bytes or a recall, to a budget and its plan.
#include "server/policy/cache_plan.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"
#include "kernels/status_macros.h"
#include "server/policy/budget.h"
#include "server/policy/planner.h"
#include "server/status/field_error.h"

namespace pkv {
namespace {

// Sinks and pins as ascending, disjoint spans.
absl::StatusOr<std::vector<TokenSpan>> kept_spans(const PlanInput& input) {
  std::vector<TokenSpan> spans;
  for (size_t i = 0; i < input.spec.pins.size(); ++i) {
    const TokenSpan& pin = input.spec.pins[i];
    if (pin.end > input.prompt_tokens) {
      return field_error(absl::StrCat("cache_policy.pins[", i, "].end"),
                         absl::StrCat(pin.end, " is beyond the prompt of ", input.prompt_tokens, " tokens"));
    }
    spans.push_back(pin);
  }
  const int32_t sinks = std::min(input.policy.sink_tokens(), input.prompt_tokens);
  if (sinks > 0) spans.push_back({0, sinks});
  std::sort(spans.begin(), spans.end(), [](const TokenSpan& a, const TokenSpan& b) { return a.begin < b.begin; });
  std::vector<TokenSpan> merged;
  for (const TokenSpan& span : spans) {
    if (!merged.empty() && span.begin <= merged.back().end) {
      merged.back().end = std::max(merged.back().end, span.end);
    } else {
      merged.push_back(span);
    }
  }
  return merged;
}

// The plan for a budget in bytes: the largest that holds at every instant, or the smallest there is, marked as too
// large.
CachePlan plan_for_bytes(const Planner& planner, uint64_t bytes) {
  std::optional<CachePlan> plan =
      planner.largest([&](const CachePlan& candidate) { return candidate.footprint.peak_bytes <= bytes; });
  if (plan) return *std::move(plan);
  CachePlan smallest = planner.smallest_plan();
  smallest.within_budget = false;
  return smallest;
}

absl::StatusOr<CachePlan> plan_for_tokens(const Planner& planner, int64_t tokens, const char* field) {
  const auto budget = static_cast<int32_t>(std::min<int64_t>(tokens, planner.tokens()));
  if (budget < planner.tokens() && budget < planner.always_kept(budget)) {
    return field_error(field, absl::StrCat(budget, " entries have no room for the ", planner.always_kept(budget),
                                           " of window, sinks and pins"));
  }
  PKV_RETURN_IF_ERROR(planner.check_room(budget));
  return planner.at(budget);
}

absl::StatusOr<CachePlan> plan_budget(const Planner& planner, const PolicySpec& spec) {
  switch (spec.budget.kind) {
    case BudgetKind::kNone:
      return planner.at(planner.tokens());
    case BudgetKind::kTokens:
      return plan_for_tokens(planner, spec.budget.tokens, "cache_policy.budget.tokens");
    case BudgetKind::kKeepRatio:
      return plan_for_tokens(planner, resolve_budget(spec.budget, planner.tokens(), planner.smallest(1)),
                             "cache_policy.budget.keep_ratio");
    case BudgetKind::kBytes:
      return plan_for_bytes(planner, spec.budget.bytes);
    case BudgetKind::kMinRecall:
      if (spec.budget.max_bytes == 0) return planner.at(planner.tokens());
      return plan_for_bytes(planner, spec.budget.max_bytes);
  }
  PKV_CHECK(false, "a budget of no known kind");
}

}  // namespace

absl::StatusOr<CachePlan> plan_cache(const PlanInput& input) {
  PKV_ASSIGN_OR_RETURN(std::vector<TokenSpan> spans, kept_spans(input));
  PKV_RETURN_IF_ERROR(input.policy.check_budget(input.spec.budget));
  const Planner planner(input, std::move(spans));
  absl::StatusOr<CachePlan> plan = plan_budget(planner, input.spec);
  if (plan.ok() && input.spec.budget.kind != BudgetKind::kNone) {
    const CachePlan smallest = planner.smallest_plan();
    plan->smallest_budget_tokens = smallest.budget_tokens;
    plan->smallest_budget_bytes = smallest.footprint.peak_bytes;
  }
  return plan;
}

std::optional<CachePlan> largest_plan(const PlanInput& input, const std::function<bool(const CachePlan&)>& fits) {
  absl::StatusOr<std::vector<TokenSpan>> spans = kept_spans(input);
  PKV_CHECK(spans.ok(), "a request that was planned before");
  return Planner(input, *std::move(spans)).largest(fits);
}

}  // namespace pkv
