// Resolves budgets to entries per lane, with floors for what is always kept, and searches the budgets that bytes allow.
#include "server/policy/cache_plan.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"
#include "kernels/status_macros.h"
#include "server/policy/budget.h"
#include "server/policy/cache_relative.h"
#include "server/policy/evictor.h"
#include "server/status/field_error.h"

namespace pkv {
namespace {

int32_t size_of(std::span<const TokenSpan> spans) {
  int32_t tokens = 0;
  for (const TokenSpan& span : spans) tokens += span.end - span.begin;
  return tokens;
}

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

// One request's planning: what does not depend on the budget, and the plan at any budget.
class Planner {
 public:
  Planner(const PlanInput& input, std::vector<TokenSpan> spans)
      : input_(input),
        spans_(std::move(spans)),
        spans_tokens_(size_of(spans_)),
        total_(input.spec.budget.scope == BudgetScope::kTotal),
        span_(input.prompt_tokens + (total_ ? input.max_tokens : 0)) {}

  // n: the tokens that a budget is a share of.
  int32_t tokens() const { return span_; }
  // Entries of every lane that are never evicted at an average budget of B: sinks, pins and the window, the newest
  // token at least.
  int64_t always_kept(int32_t budget) const {
    return int64_t{std::max(1, input_.policy.window_tokens(budget))} + spans_tokens_;
  }
  // The smallest B above window and sinks with `spare` entries beside all that is always kept, or n.
  int32_t smallest(int32_t spare) const {
    const auto too_small = [&](int32_t budget) {
      const int64_t window = input_.policy.window_tokens(budget);
      return budget <= window + input_.policy.sink_tokens() || budget < always_kept(budget) ||
             budget < window + spans_tokens_ + spare;
    };
    int32_t budget = 1;
    while (budget < span_ && too_small(budget)) ++budget;
    return budget;
  }
  // The plan that holds least: of a small budget, or of everything, for which no state has to be kept.
  CachePlan smallest_plan() const;
  bool spends_exactly() const { return shapeless() || input_.policy.spends_exactly(); }
  // `uniform`: with the same entries in every layer whatever the policy's rule says.
  CachePlan at(int32_t budget, bool uniform = false) const;
  std::optional<CachePlan> largest(const std::function<bool(const CachePlan&)>& fits) const;
  // The layer that has fewer entries than are always kept, where the policy's rule leaves no room to borrow.
  absl::Status check_room(int32_t budget) const;

 private:
  // min_recall: every lane has the same share of the ceiling.
  bool shapeless() const { return input_.spec.budget.kind == BudgetKind::kMinRecall; }
  // The small budget that leaves every layer room and holds least.
  int32_t least_budget() const;
  std::vector<int32_t> layer_budgets(int32_t budget, bool uniform) const;
  template <typename Holds>
  static int32_t last_good(int32_t good, int32_t bad, const Holds& holds);

  const PlanInput& input_;
  std::vector<TokenSpan> spans_;
  int32_t spans_tokens_;
  bool total_;
  int32_t span_;
};

std::vector<int32_t> Planner::layer_budgets(int32_t budget, bool uniform) const {
  const int32_t layers = input_.geometry.layers;
  if (budget >= span_ || shapeless() || uniform) return std::vector<int32_t>(static_cast<size_t>(layers), budget);
  std::vector<int32_t> budgets = input_.policy.layer_budgets(budget, span_, layers);
  if (input_.policy.spends_exactly())
    raise_to_floor(budgets, static_cast<int32_t>(std::min<int64_t>(always_kept(budget), budget)));
  return budgets;
}

absl::Status Planner::check_room(int32_t budget) const {
  if (spends_exactly()) return absl::OkStatus();  // layers above the floor lend
  const std::vector<int32_t> budgets = layer_budgets(budget, /*uniform=*/false);
  const auto least = std::min_element(budgets.begin(), budgets.end());
  if (budget >= span_ || *least >= always_kept(budget)) return absl::OkStatus();
  return field_error("cache_policy.pins",
                     absl::StrCat("layer ", least - budgets.begin(), " has ", *least, " entries, fewer than the ",
                                  always_kept(budget), " of window, sinks and pins"));
}

CachePlan Planner::at(int32_t budget, bool uniform) const {
  const int32_t prompt = input_.prompt_tokens;
  const int32_t growth = std::max(0, input_.max_tokens - 1);  // the last generated token is never written
  CachePlan plan{.budget_tokens = std::min(budget, span_),
                 .window_tokens = input_.policy.window_tokens(budget),
                 .kept_spans = spans_};
  for (const int32_t entries : layer_budgets(plan.budget_tokens, uniform)) {
    const int32_t kept = std::min(entries, prompt);
    const int32_t limit = total_ ? std::min(entries, prompt + growth) : kept + growth;
    plan.lane_budgets.insert(plan.lane_budgets.end(), static_cast<size_t>(input_.geometry.kv_heads), kept);
    plan.lane_limits.insert(plan.lane_limits.end(), static_cast<size_t>(input_.geometry.kv_heads), limit);
    plan.compresses |= kept < prompt || (shapeless() && prompt > always_kept(budget));
    plan.evicts_while_generating |= limit < prompt + growth && total_;
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
  plan.footprint = cache_footprint(input_.geometry, input_.spec.kv_dtype, prompt, plan);
  return plan;
}

CachePlan Planner::smallest_plan() const {
  CachePlan least = at(least_budget()), everything = at(span_);
  return least.footprint.peak_bytes <= everything.footprint.peak_bytes ? least : everything;
}

int32_t Planner::least_budget() const {
  int32_t first = smallest(0);
  while (!check_room(first).ok()) ++first;
  const CachePlan plan = at(first);
  if (spends_exactly() && plan.lane_limits.front() == plan.lane_limits.back()) return first;
  // Rounding of layers and pages may let a budget a little larger hold less: a rule that rounds its step down spends up
  // to (L - 1) / 2 entries too many in every layer, and pages up to one page less an entry.
  const int32_t reach = input_.geometry.layers + input_.geometry.layout(input_.spec.kv_dtype).slots();
  int32_t least = first;
  uint64_t least_bytes = plan.footprint.peak_bytes;
  for (int32_t budget = first + 1; budget < std::min(span_, first + reach); ++budget) {
    if (!check_room(budget).ok()) continue;
    const uint64_t bytes = at(budget).footprint.peak_bytes;
    if (bytes < least_bytes) least = budget, least_bytes = bytes;
  }
  return least;
}

// The last of [good, bad) that holds, where what holds comes before what does not.
template <typename Holds>
int32_t Planner::last_good(int32_t good, int32_t bad, const Holds& holds) {
  while (bad - good > 1) {
    const int32_t middle = good + (bad - good) / 2;
    (holds(middle) ? good : bad) = middle;
  }
  return good;
}

std::optional<CachePlan> Planner::largest(const std::function<bool(const CachePlan&)>& fits) const {
  const int32_t least = least_budget();
  const int32_t page = input_.geometry.layout(input_.spec.kv_dtype).slots();
  std::optional<CachePlan> best;
  const auto try_budget = [&](int32_t budget) {
    if (!check_room(budget).ok()) return false;
    CachePlan plan = at(budget);
    if (!fits(plan)) return false;
    best = std::move(plan);
    return true;
  };
  if (try_budget(span_) || !try_budget(least)) return best;
  if (spends_exactly()) {
    int32_t good = last_good(least, span_, try_budget);
    // Rounding may take a page from one layer when the budget grows by one, so a little above may fit again; a page
    // more in every lane is certain after as many entries as a page has.
    for (int32_t budget = good + 1; budget < span_ && budget <= good + 2 * page; ++budget) {
      if (try_budget(budget)) good = budget;
    }
    return best;
  }
  // The sum jumps with the rounding of the step, so budgets are tried one by one; from where equal layers, which hold
  // less up to any layer, would still fit but for the rounding to pages.
  const int32_t equal = last_good(least, span_, [&](int32_t budget) { return fits(at(budget, /*uniform=*/true)); });
  for (int32_t budget = std::min(span_ - 1, equal + page); budget > least; --budget) {
    if (try_budget(budget)) return best;
  }
  return best;
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
