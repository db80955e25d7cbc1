// What a run of `pyramidkv bench` has measured, in memory that does not grow with its length.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "client/bench/call.h"
#include "client/bench/histogram.h"

namespace pkv::client {

// Sums over completed calls: what the server counts too, and by the same name of the policy.
struct BenchSums {
  uint64_t completed = 0, prompt_tokens = 0, generated_tokens = 0, evicted_entries = 0;
  uint64_t full_bytes = 0, held_bytes = 0, allocated_bytes = 0, auxiliary_bytes = 0, peak_bytes = 0;
  int64_t saved_bytes = 0;
  // Integrals over time, where the server's reports have them.
  std::optional<double> held_byte_seconds, full_byte_seconds;

  void add(const v1::StreamEnd& end);
};

struct BenchLimits {
  std::optional<double> ttft, itl;  // seconds
  bool any() const { return ttft || itl; }
};

// Of one policy of the mix or of all; measured calls only. Every call is in exactly one of completed, refused, failed,
// cancelled and dropped.
struct BenchFigures {
  uint64_t refused = 0;    // the server said why, before it admitted the call
  uint64_t failed = 0;     // anything else that is not OK
  uint64_t cancelled = 0;  // by this program, because it was interrupted
  uint64_t dropped = 0;    // never sent: too many were in flight
  uint64_t within_limits = 0;
  std::map<std::string, uint64_t> refusals, errors;  // by the server's reason; by gRPC code

  // Of completed calls, but for the lag, which is of all that were sent.
  BenchHistogram first_token, inter_token, total, queue, lag;
  BenchSums sums;
  double keep_ratio_sum = 0;
  uint64_t keep_ratios = 0;
  double recall_sum = 0, recall_min = 1;
  uint64_t recalls = 0;

  uint64_t calls() const { return sums.completed + refused + failed + cancelled + dropped; }
  void add(const BenchOutcome& outcome, const BenchLimits& limits, bool interrupted);
};

// All figures of a run. Not thread-safe.
class BenchRecord {
 public:
  BenchRecord(size_t policies, BenchLimits limits) : limits_(limits), policies_(policies) {}

  // `interrupted`: calls are being cancelled by this program.
  void add(const BenchOutcome& outcome, bool interrupted);
  void drop(size_t policy, bool measured);

  const BenchFigures& all() const { return all_; }
  const BenchFigures& policy(size_t i) const { return policies_[i]; }
  const BenchLimits& limits() const { return limits_; }
  uint64_t warmup_calls() const { return warmup_calls_; }
  // By the server's name of the policy, over every completed call, the warm-up's too.
  const std::map<std::string, BenchSums>& sums() const { return sums_; }
  // Whether any call, of the warm-up or measured, completed; and whether any did not, through no doing of ours.
  bool any_completed() const { return !sums_.empty(); }
  bool any_unanswered() const { return any_unanswered_; }
  // When the last measured call ended.
  std::optional<BenchClock::time_point> last_end() const { return last_end_; }

 private:
  BenchLimits limits_;
  BenchFigures all_;
  std::vector<BenchFigures> policies_;
  std::map<std::string, BenchSums> sums_;
  uint64_t warmup_calls_ = 0;
  bool any_unanswered_ = false;
  std::optional<BenchClock::time_point> last_end_;
};

}  // namespace pkv::client
