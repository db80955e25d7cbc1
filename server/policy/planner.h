// The plans of one request at any budget, and the search among them. Internal to cache_plan.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "server/policy/cache_plan.h"

namespace pkv {

// One request's planning: what does not depend on the budget, and the plan at any budget.
class Planner {
 public:
  Planner(const PlanInput& input, std::vector<TokenSpan> spans)
      : input_(input),
        spans_(std::move(spans)),
        spans_tokens_(tokens_of(spans_)),
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
  // `even`: with the same entries in every lane whatever the policy's rule says.
  CachePlan at(int32_t budget, bool even = false) const;
  std::optional<CachePlan> largest(const std::function<bool(const CachePlan&)>& fits) const;
  // The layer that has fewer entries than are always kept, where the policy's rule leaves no room to borrow.
  absl::Status check_room(int32_t budget) const;

 private:
  // What a budget comes to.
  struct LaneBudgets {
    std::vector<int32_t> lanes;     // [layers * kv_heads] entries; in a layer whose lanes share, the most of each
    std::vector<int64_t> shared;    // [layers] entries that the lanes of a layer share by their scores; 0: they do not
    std::vector<int32_t> smallest;  // [layers] entries of each lane at least, where they share
    int64_t model = 0;              // entries that the lanes of all layers share; 0: they do not
  };

  // min_recall: every lane has the same share of the ceiling.
  bool shapeless() const { return input_.spec.budget.kind == BudgetKind::kMinRecall; }
  bool spends_exactly() const { return shapeless() || input_.policy.spends_exactly(); }
  bool front_loaded() const { return shapeless() || input_.policy.front_loaded(); }
  // The small budget that leaves every layer room and holds least.
  int32_t least_budget() const;
  LaneBudgets lane_budgets(int32_t budget, bool even) const;
  // Lanes share where the prompt brings more entries than their layer may hold. Where it does not, they have equal
  // parts of the total (what is over goes to the lower heads): there is nothing to choose. `floor`: entries of every
  // lane at least.
  LaneBudgets shared_layers(std::span<const LayerTotal> totals, int64_t floor) const;
  // The same of all layers together.
  LaneBudgets shared_model(std::span<const int32_t> floors, int32_t budget, int64_t floor) const;
  // A plan whose footprint is at most that of any plan of `budget` or more.
  CachePlan at_least(int32_t budget) const;
  static int32_t tokens_of(const std::vector<TokenSpan>& spans) {
    int32_t tokens = 0;
    for (const TokenSpan& span : spans) tokens += span.end - span.begin;
    return tokens;
  }
  int32_t page_slots() const { return input_.geometry.layout(input_.spec.kv_dtype).slots(); }
  template <typename Holds>
  static int32_t last_good(int32_t good, int32_t bad, const Holds& holds);

  const PlanInput& input_;
  std::vector<TokenSpan> spans_;
  int32_t spans_tokens_;
  bool total_;
  int32_t span_;
};

}  // namespace pkv
