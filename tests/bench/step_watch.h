// Checks the engine's state after every step against the allocator, and remembers what was wrong.
#pragma once

#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include "server/engine/stats.h"

namespace pkv {

// Things that must not be, counted, the first of them in words. Thread-safe.
class Breaches {
 public:
  static constexpr size_t kRemembered = 20;
  void add(const std::string& what);
  // Adds `what` where `holds` is false.
  void expect(bool holds, const char* what) {
    if (!holds) add(what);
  }
  int64_t count() const;
  std::vector<std::string> first() const;

 private:
  mutable std::mutex mutex_;
  int64_t count_ = 0;
  std::vector<std::string> first_;
};

// To be called by EngineOptions::at_step.
class StepWatch {
 public:
  StepWatch(Breaches& breaches, uint64_t workspace_limit_bytes)
      : breaches_(breaches), workspace_limit_bytes_(workspace_limit_bytes) {}

  // pool = live + free; the pages of all sequences add up to what the pool has given out, and their bytes to the
  // cache's totals; nothing is held that was not reserved, nor reserved that is not there.
  void check(const EngineStats& stats);

  uint64_t steps() const { return steps_; }
  uint32_t most_running() const { return most_running_; }
  uint64_t most_live_bytes() const { return most_live_bytes_; }
  uint64_t most_bytes() const { return most_bytes_; }  // allocated + auxiliary
  uint64_t pool_bytes() const { return pool_bytes_; }
  // Share of the steps after which somebody was waiting.
  double waiting_share() const {
    return steps_ == 0 ? 0 : static_cast<double>(steps_waiting_) / static_cast<double>(steps_);
  }

 private:
  Breaches& breaches_;
  uint64_t workspace_limit_bytes_;
  uint64_t steps_ = 0, steps_waiting_ = 0;
  uint32_t most_running_ = 0;
  uint64_t most_live_bytes_ = 0, most_bytes_ = 0, pool_bytes_ = 0, first_workspace_bytes_ = 0;
};

}  // namespace pkv
