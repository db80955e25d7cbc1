// The least and the largest budget of a request, in bytes.
#include "server/policy/planner.h"

namespace pkv {

CachePlan Planner::smallest_plan() const {
  CachePlan least = at(least_budget()), everything = at(span_);
  return least.footprint.peak_bytes <= everything.footprint.peak_bytes ? least : everything;
}

// Even lanes of a page less need no more pages for the same entries than any others. A layer that is cut late may hold
// most of what is kept, and beside a whole layer then nothing of it; in a front-loaded plan every layer cut so far has
// its part at least, unless the prompt is shorter than that.
CachePlan Planner::at_least(int32_t budget) const {
  CachePlan plan = at(std::max(1, budget - page_slots()), /*even=*/true);
  if (total_ || !front_loaded()) {
    plan.footprint.peak_pages = plan.footprint.steady_pages;
    plan.footprint.peak_bytes = plan.footprint.steady_bytes;
  }
  return plan;
}

int32_t Planner::least_budget() const {
  int32_t first = smallest(0);
  while (!check_room(first).ok()) ++first;
  const CachePlan plan = at(first);
  if (front_loaded() && spends_exactly() && plan.lane_limits.front() == plan.lane_limits.back()) return first;
  // Rounding of layers and pages may let a budget a little larger hold less: a rule that rounds its step down spends up
  // to (L - 1) / 2 entries too many in every layer, and pages up to one page less an entry.
  const int32_t reach = front_loaded() ? input_.geometry.layers + page_slots() : span_;
  int32_t least = first;
  uint64_t least_bytes = plan.footprint.peak_bytes;
  for (int32_t budget = first + 1; budget < std::min(span_, first + reach); ++budget) {
    if (!front_loaded() && at_least(budget).footprint.peak_bytes >= least_bytes) break;
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
  std::optional<CachePlan> best;
  const auto try_budget = [&](int32_t budget) {
    if (!check_room(budget).ok()) return false;
    CachePlan plan = at(budget);
    if (!fits(plan)) return false;
    best = std::move(plan);
    return true;
  };
  if (try_budget(span_) || !try_budget(least)) return best;
  if (front_loaded() && spends_exactly()) {
    int32_t good = last_good(least, span_, try_budget);
    // Rounding may take a page from one layer when the budget grows by one, so a little above may fit again; a page
    // more in every lane is certain after as many entries as a page has.
    for (int32_t budget = good + 1; budget < span_ && budget <= good + 2 * page_slots(); ++budget) {
      if (try_budget(budget)) good = budget;
    }
    return best;
  }
  // Any shape, or a sum that jumps with the rounding of the step: one by one, down from the last that may fit.
  const int32_t last = last_good(least, span_, [&](int32_t budget) { return fits(at_least(budget)); });
  for (int32_t budget = last; budget > least; --budget) {
    if (try_budget(budget)) return best;
  }
  return best;
}

}  // namespace pkv
