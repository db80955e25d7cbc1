// The sums that have to agree after every step.
#include "tests/bench/step_watch.h"

#include <algorithm>

namespace pkv {

void Breaches::add(const std::string& what) {
  const std::lock_guard lock(mutex_);
  if (++count_ <= static_cast<int64_t>(kRemembered)) first_.push_back(what);
}

int64_t Breaches::count() const {
  const std::lock_guard lock(mutex_);
  return count_;
}

std::vector<std::string> Breaches::first() const {
  const std::lock_guard lock(mutex_);
  return first_;
}

void StepWatch::check(const EngineStats& stats) {
  // What each sequence says of itself, added up by policy.
  uint64_t held = 0, auxiliary = 0;
  int64_t allocated = 0;
  for (const auto& [name, totals] : stats.policies) {
    held += totals.held_bytes;
    auxiliary += totals.auxiliary_bytes;
    allocated += static_cast<int64_t>(totals.full_equivalent_bytes) - totals.saved_bytes -
                 static_cast<int64_t>(totals.auxiliary_bytes);
  }
  breaches_.expect(stats.live_bytes + stats.free_bytes == stats.pool_bytes, "the pool is not live and free pages");
  breaches_.expect(static_cast<uint64_t>(allocated) == stats.live_bytes, "sequences do not hold the live pages");
  breaches_.expect(stats.cache.allocated == stats.live_bytes, "the cache's total is not the live pages");
  breaches_.expect(held == stats.cache.held, "sequences do not hold the cache's entries");
  breaches_.expect(auxiliary == stats.cache.auxiliary, "sequences do not hold the cache's auxiliary bytes");
  breaches_.expect(stats.live_bytes <= stats.reserved_bytes, "more is held than was reserved");
  breaches_.expect(stats.reserved_bytes <= stats.pool_bytes, "more is reserved than there is");
  if (steps_ == 0) first_workspace_bytes_ = stats.workspace_bytes;  // shared by all
  breaches_.expect(stats.workspace_bytes <= first_workspace_bytes_ + workspace_limit_bytes_,
                   "workspace above its limit");

  ++steps_;
  steps_waiting_ += stats.waiting > 0 ? 1 : 0;
  most_running_ = std::max(most_running_, stats.running);
  most_live_bytes_ = std::max(most_live_bytes_, stats.live_bytes);
  most_bytes_ = std::max(most_bytes_, stats.cache.allocated + stats.cache.auxiliary);
  pool_bytes_ = stats.pool_bytes;
}

}  // namespace pkv
