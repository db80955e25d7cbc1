// Starts calls when they are due, whatever became of earlier ones, and records how they ended.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "client/bench/arrivals.h"
#include "client/bench/call.h"
#include "client/bench/figures.h"
#include "client/bench/options.h"
#include "client/bench/requests.h"

namespace pkv::client {

// Where a run is, for the progress bar.
struct BenchState {
  double seconds = 0;
  double done_share = 0;  // of the load, 0 to 1
  uint64_t started = 0, in_flight = 0, completed = 0, unsuccessful = 0, generated_tokens = 0;
};

class BenchRunner {
 public:
  using Stubs = std::vector<std::unique_ptr<v1::GenerationService::Stub>>;

  // Everything is kept by reference and must outlive the runner; `stop` becomes true when the run is to end early.
  // `show` is called some twenty times a second on the thread of run().
  BenchRunner(const BenchPlan& plan, const std::vector<TraceLine>& trace, const BenchRequests& requests, Stubs& stubs,
              BenchRecord& record, const std::atomic<bool>& stop, std::function<void(const BenchState&)> show);

  // Returns when all calls have ended.
  void run();

  // Seconds that the measured calls took: from when the first could be due to the end of the last, and not less than
  // the duration that was asked for.
  double measured_seconds() const;
  // Whether calls were cancelled, or not made, because of `stop`.
  bool interrupted() const { return interrupted_; }

 private:
  void open_loop(const std::function<std::optional<Arrival>()>& next);
  void closed_loop();
  std::optional<Arrival> next_of_trace();
  void start(bool measured, BenchClock::time_point due);
  void done(BenchCall& call, BenchOutcome outcome);
  // Waits until `due`, or until `ready` where there is one; false where the run was stopped before.
  bool wait(BenchClock::time_point due, const std::function<bool()>& ready = {});
  void drain();
  void cancel_all();
  // Destroys calls that have ended.
  void bury();
  BenchClock::time_point rest_until() const;
  BenchState state() const;
  double elapsed() const { return std::chrono::duration<double>(BenchClock::now() - begin_).count(); }

  const BenchPlan& plan_;
  const std::vector<TraceLine>& trace_;
  const BenchRequests& requests_;
  Stubs& stubs_;
  const std::atomic<bool>& stop_;
  std::function<void(const BenchState&)> show_;

  // Of the thread of run().
  BenchClock::time_point begin_;
  uint64_t started_ = 0, measured_ = 0;  // dropped ones too
  double measured_from_ = 0, planned_seconds_ = 0;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  BenchRecord& record_;
  std::unordered_map<BenchCall*, std::shared_ptr<BenchCall>> calls_;
  // Destroyed by the thread of run() alone: with a call may go the last hold on its channel, and a channel that is
  // destroyed by a thread of gRPC waits for that very thread.
  std::vector<std::shared_ptr<BenchCall>> ended_;
  BenchClock::time_point rest_until_;  // of a closed loop
  uint64_t completed_ = 0, unsuccessful_ = 0, generated_tokens_ = 0;
  bool interrupted_ = false;
};

}  // namespace pkv::client
