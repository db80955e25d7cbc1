// The engine's own: what its threads share, and what only the engine thread touches. engine.cpp holds what others may
// call, engine_loop.cpp the loop, engine_failure.cpp its end by a failure.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <variant>
#include <vector>

#include "absl/strings/string_view.h"
#include "server/engine/contract.h"
#include "server/engine/engine.h"
#include "server/engine/model_runner.h"
#include "server/engine/prompt_rate.h"
#include "server/engine/scheduler.h"
#include "server/engine/sequence.h"
#include "server/engine/stats_recorder.h"
#include "server/telemetry/latest.h"

namespace pkv {

class EngineImpl final : public Engine {
 public:
  EngineImpl(const Model& model, const EngineOptions& options, std::unique_ptr<ModelRunner> runner);
  ~EngineImpl() override { drain(absl::InfinitePast()); }

  absl::StatusOr<Contract> estimate(const Contract::Query& query) const override { return rules_.contract(query); }
  bool has_room(const Contract& contract) const override;
  absl::Duration least_prompt_time(const Contract& contract) const override {
    return prompt_rate_.least_time(contract.cost.prefill_work);
  }
  absl::StatusOr<Prepared> prepare(std::shared_ptr<const Request> request) const override {
    return rules_.prepare(std::move(request));
  }
  absl::Status submit(Prepared prepared, const JobClaim& claim, std::shared_ptr<TokenSink> sink) override;
  void cancel(const TokenSink* sink) override;
  void close() override;
  bool drain(absl::Time deadline) override;
  State state() const override { return state_.load(); }
  absl::Status failure() const override;
  absl::Duration stalled_for() const override;
  std::shared_ptr<const EngineStats> stats() const override;
  const EngineOptions& options() const override { return options_; }

 private:
  struct Ending {
    std::shared_ptr<Sequence> sequence;
    std::variant<absl::Status, RequestResult> outcome;
  };
  // What others may know of the engine thread's own, as it was at one instant.
  struct Snapshot {
    EngineStats stats;
    Scheduler::Room room;
  };

  // Between two tries to tell a caller the end, where there is no memory for that and nothing else to do.
  static constexpr std::chrono::milliseconds kMemoryPause{10};

  Scheduler::Limits limits() const;

  // On the engine thread.
  void run();
  absl::Status loop();
  bool take_incoming();
  static int64_t steady_nanoseconds();
  void beat() { heartbeat_ = steady_nanoseconds(); }
  absl::Status step();  // an error is the engine's end
  void fail_unwanted(absl::Time now);
  void admit();
  absl::Status decode_step();
  absl::Status units_step();
  int64_t refresh_step(int64_t most);
  absl::Status prefill_step(int64_t most);
  absl::StatusOr<int64_t> prefill_unit(int64_t most);
  absl::Status collect_done();
  std::shared_ptr<Snapshot> make_snapshot(absl::Time now);
  void publish(absl::Time now);
  void deliver();
  void fail(absl::string_view cause);
  Sequence& sequence_of(JobId job);

  const Model& model_;
  EngineOptions options_;

  // The engine thread's own.
  std::unique_ptr<ModelRunner> runner_;
  Scheduler scheduler_;
  StatsRecorder recorder_;
  std::vector<std::shared_ptr<Sequence>> sequences_;  // waiting and running, in order of submission
  std::vector<Sequence*> decoding_;                   // of one step
  size_t decoded_ = 0, decoded_rows_ = 0;             // of one step: sequences, comparisons included, and their rows
  int64_t attended_tokens_ = 0;                       // of one step: whose entries the rows attend to, about
  JobId last_refreshed_ = 0;                          // whose turn it was
  std::vector<Ending> endings_;                       // told after the step, when their pages are back
  bool changed_ = true;  // since the last snapshot: a request came, started, had its prompt read or ended
  absl::Time snapshot_at_;

  // Shared.
  PromptRate prompt_rate_;
  const ContractRules rules_;
  std::atomic<State> state_ = State::kServing;
  // When there was last a sign of life, on the steady clock. 0: idle; that begins and ends under the mutex.
  std::atomic<int64_t> heartbeat_ = 0;
  mutable std::mutex mutex_;
  std::condition_variable wake_;  // the engine: there is something to do
  std::condition_variable idle_;  // drain: a request has ended
  std::vector<std::shared_ptr<Sequence>> incoming_;
  std::unordered_map<const TokenSink*, std::shared_ptr<Sequence>> live_;  // until its end was told
  size_t waiting_ = 0;                                                    // not admitted yet, incoming_ included
  JobId next_job_ = 1;
  bool aborting_ = false;  // everything still there fails with UNAVAILABLE
  bool stopping_ = false;  // the thread ends when nothing is left
  absl::Status failure_;   // set once, with kFailed
  Latest<Snapshot> latest_;

  std::jthread thread_;
};

}  // namespace pkv
