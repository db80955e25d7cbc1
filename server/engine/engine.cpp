// The engine: what other threads may call, and the loop of the one thread that owns scheduler, cache and model.
#include "server/engine/engine.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"
#include "server/engine/admission.h"
#include "server/engine/scheduler.h"
#include "server/engine/sequence.h"
#include "server/engine/stats_recorder.h"
#include "server/engine/stepper.h"
#include "server/telemetry/latest.h"

namespace pkv {
namespace {

constexpr absl::Duration kProgressInterval = absl::Milliseconds(100);
constexpr absl::Duration kSnapshotInterval = absl::Milliseconds(50);  // at most, while there is something to do

int64_t steady_nanoseconds() {
  return std::chrono::nanoseconds(std::chrono::steady_clock::now().time_since_epoch()).count();
}

absl::Status check_options(const EngineOptions& options) {
  const struct {
    const char* name;
    int64_t value;
  } at_least_one[] = {{"max_running", options.max_running},
                      {"max_waiting", options.max_waiting},
                      {"prefill_chunk_rows", options.prefill_chunk_rows},
                      {"step_tokens", options.step_tokens},
                      {"concurrent_prefills", options.concurrent_prefills}};
  for (const auto& [name, value] : at_least_one) {
    if (value < 1)
      return absl::InvalidArgumentError(absl::StrCat("scheduler.", name, ": must be at least 1, got ", value));
  }
  return absl::OkStatus();
}

class EngineImpl final : public Engine {
 public:
  EngineImpl(const Model& model, const EngineOptions& options, std::unique_ptr<Stepper> stepper);
  ~EngineImpl() override { drain(absl::InfinitePast()); }

  absl::Status submit(std::shared_ptr<const Request> request, std::shared_ptr<TokenSink> sink) override;
  void cancel(const TokenSink* sink) override;
  absl::StatusOr<Admission> check(const Query& query) const override;
  bool drain(absl::Time deadline) override;
  EngineState state() const override { return state_.load(); }
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
    AdmissionRoom room;
  };

  SchedulerLimits limits() const;
  absl::StatusOr<std::shared_ptr<Sequence>> make_sequence(std::shared_ptr<const Request> request,
                                                          std::shared_ptr<TokenSink> sink) const;
  absl::Status enqueue(std::shared_ptr<Sequence> sequence);

  // On the engine thread.
  void run();
  bool take_incoming();
  void beat() { heartbeat_ = steady_nanoseconds(); }
  void step();
  void fail_unwanted(absl::Time now);
  void admit();
  void decode_step();
  void prefill_step();
  void report_progress(Sequence& sequence);
  void collect_done();
  void publish(absl::Time now);
  void deliver();
  Sequence& sequence_of(JobId job);

  const Model& model_;
  EngineOptions options_;

  // The engine thread's own.
  std::unique_ptr<Stepper> stepper_;
  Scheduler scheduler_;
  StatsRecorder recorder_;
  std::vector<std::shared_ptr<Sequence>> sequences_;  // waiting and running, in order of submission
  std::vector<Sequence*> decoding_;                   // of one step
  size_t decoded_ = 0;                                // of one step, comparisons included
  std::vector<Ending> endings_;                       // told at the end of the step, when their pages are back
  bool changed_ = true;  // since the last snapshot: a request came, started, had its prompt read or ended
  absl::Time snapshot_at_;

  // Shared.
  const AdmissionRules rules_;
  std::atomic<EngineState> state_ = EngineState::kServing;
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
  Latest<Snapshot> latest_;

  std::jthread thread_;
};

EngineImpl::EngineImpl(const Model& model, const EngineOptions& options, std::unique_ptr<Stepper> stepper)
    : model_(model),
      options_(options),
      stepper_(std::move(stepper)),
      scheduler_(limits()),
      recorder_(model.shape()),
      rules_(model.shape(), stepper_->cache().geometry(), limits()) {
  publish(options_.clock());
  thread_ = std::jthread([this] { run(); });
}

SchedulerLimits EngineImpl::limits() const {
  return {.pool_pages = static_cast<uint64_t>(stepper_->cache().pool().total()),
          .workspace_bytes = options_.workspace_bytes,
          .max_running = options_.max_running,
          .concurrent_prefills = options_.concurrent_prefills};
}

// ---- any thread
// -------------------------------------------------------------------------------------------------------

absl::StatusOr<std::shared_ptr<Sequence>> EngineImpl::make_sequence(std::shared_ptr<const Request> request,
                                                                    std::shared_ptr<TokenSink> sink) const {
  if (absl::Status status = rules_.check_tokens(*request); !status.ok()) return status;
  absl::StatusOr<Contract> contract = rules_.resolve({.policy = request->policy,
                                                      .prompt_tokens = static_cast<int32_t>(request->prompt.size()),
                                                      .max_tokens = request->sampling.max_tokens,
                                                      .compare_with = request->compare_with});
  if (!contract.ok()) return contract.status();
  if (absl::Status status = rules_.check_fits(*contract); !status.ok()) return status;
  auto sequence = std::make_shared<Sequence>(std::move(request), std::move(sink), *std::move(contract));
  sequence->submitted = options_.clock();
  return sequence;
}

absl::Status EngineImpl::enqueue(std::shared_ptr<Sequence> sequence) {
  std::lock_guard lock(mutex_);
  if (state_ != EngineState::kServing) return absl::UnavailableError("the server is shutting down");
  if (waiting_ >= static_cast<size_t>(options_.max_waiting)) {
    return absl::ResourceExhaustedError(absl::StrCat("the queue is full: ", waiting_, " requests are waiting"));
  }
  const bool fresh = live_.emplace(sequence->sink.get(), sequence).second;
  PKV_CHECK(fresh, "a sink serves one request at a time");
  sequence->job = next_job_++;
  ++waiting_;
  incoming_.push_back(std::move(sequence));
  if (heartbeat_ == 0) beat();  // a thread that does not wake has stalled too
  wake_.notify_one();
  return absl::OkStatus();
}

absl::Status EngineImpl::submit(std::shared_ptr<const Request> request, std::shared_ptr<TokenSink> sink) {
  absl::StatusOr<std::shared_ptr<Sequence>> sequence = make_sequence(std::move(request), std::move(sink));
  return sequence.ok() ? enqueue(*std::move(sequence)) : sequence.status();
}

void EngineImpl::cancel(const TokenSink* sink) {
  // Looked up here and now: later, another sink could lie at the same address.
  std::lock_guard lock(mutex_);
  if (const auto found = live_.find(sink); found != live_.end()) found->second->cancelled = true;
}

absl::StatusOr<Admission> EngineImpl::check(const Query& query) const {
  absl::StatusOr<Contract> contract = rules_.resolve(query);
  if (!contract.ok()) return contract.status();
  Admission figures = std::move(contract->figures);
  const JobCost cost = rules_.cost(*contract, query.prompt_tokens, /*scores_prompt=*/false);
  const bool has_room = latest_.get()->room.admits(cost);
  std::lock_guard lock(mutex_);
  figures.admissible_now = figures.admissible_ever && waiting_ == 0 && has_room;
  return figures;
}

bool EngineImpl::drain(absl::Time deadline) {
  std::unique_lock lock(mutex_);
  if (state_ == EngineState::kServing) state_ = EngineState::kDraining;
  while (!live_.empty()) {
    const absl::Duration left = deadline - options_.clock();
    if (left <= absl::ZeroDuration()) break;
    idle_.wait_for(lock, absl::ToChronoMilliseconds(std::min(left, absl::Hours(1))) + std::chrono::milliseconds(1));
  }
  aborting_ = true;
  const bool ended =
      idle_.wait_for(lock, absl::ToChronoNanoseconds(options_.abort_time), [&] { return live_.empty(); });
  if (ended) state_ = EngineState::kStopped;
  stopping_ = true;
  wake_.notify_one();
  return ended;
}

absl::Duration EngineImpl::stalled_for() const {
  const int64_t last = heartbeat_;
  return last == 0 ? absl::ZeroDuration() : absl::Nanoseconds(std::max<int64_t>(1, steady_nanoseconds() - last));
}

std::shared_ptr<const EngineStats> EngineImpl::stats() const {
  std::shared_ptr<const Snapshot> latest = latest_.get();
  const EngineStats* stats = &latest->stats;
  return {std::move(latest), stats};
}

// ---- the engine thread
// ------------------------------------------------------------------------------------------------

void EngineImpl::run() {
  while (take_incoming()) step();
}

// Sleeps while there is nothing to do. False: the thread is to end.
bool EngineImpl::take_incoming() {
  std::unique_lock lock(mutex_);
  if (incoming_.empty() && sequences_.empty()) heartbeat_ = 0;
  // Where anything waits, something runs: whatever was let in fits when it is alone. So there is no deadline to wake
  // for.
  wake_.wait(lock, [&] { return !incoming_.empty() || !sequences_.empty() || stopping_; });
  for (std::shared_ptr<Sequence>& sequence : incoming_) {
    scheduler_.enqueue(sequence->job,
                       rules_.cost(sequence->contract, sequence->prompt_tokens(), sequence->request->prompt_logprobs));
    sequences_.push_back(std::move(sequence));
  }
  changed_ = changed_ || !incoming_.empty();
  incoming_.clear();
  if (sequences_.empty()) return false;
  beat();
  return true;
}

void EngineImpl::step() {
  fail_unwanted(options_.clock());
  collect_done();
  admit();
  decode_step();
  beat();
  prefill_step();
  collect_done();
  const absl::Time now = options_.clock();
  recorder_.count_step(stepper_->take_rows_run(), decoded_);
  recorder_.count_progress(sequences_, now);
  if (changed_ || options_.at_step || absl::AbsDuration(now - snapshot_at_) >= kSnapshotInterval) publish(now);
  deliver();
}

void EngineImpl::fail_unwanted(absl::Time now) {
  bool aborting;
  {
    std::lock_guard lock(mutex_);
    aborting = aborting_;
  }
  for (const std::shared_ptr<Sequence>& sequence : sequences_) {
    // gRPC also cancels a call whose deadline has passed; it ended for the deadline all the same.
    if (sequence->request->deadline && *sequence->request->deadline <= now) {
      sequence->failure = absl::DeadlineExceededError("the deadline has passed");
    } else if (sequence->cancelled) {
      sequence->failure = absl::CancelledError("cancelled by the caller");
    } else if (aborting) {
      sequence->failure = absl::UnavailableError("the server is shutting down");
    }
  }
}

void EngineImpl::admit() {
  const std::vector<JobId> jobs = scheduler_.admit();
  {
    std::lock_guard lock(mutex_);
    waiting_ = incoming_.size() + scheduler_.waiting();
  }
  changed_ = changed_ || !jobs.empty();
  for (const JobId job : jobs) {
    Sequence& sequence = sequence_of(job);
    sequence.phase = SequencePhase::kPrefill;
    sequence.sink->on_start();
  }
}

void EngineImpl::decode_step() {
  decoding_.clear();
  decoded_ = 0;
  for (const std::shared_ptr<Sequence>& sequence : sequences_) {
    if (sequence->phase != SequencePhase::kDecode || sequence->done()) continue;
    ++decoded_;
    if (sequence->comparison) {
      stepper_->decode_comparison(*sequence);
    } else {
      decoding_.push_back(sequence.get());
    }
  }
  if (!decoding_.empty()) stepper_->decode(decoding_);
}

void EngineImpl::prefill_step() {
  const std::optional<JobId> job = scheduler_.next_prefill();
  if (!job) return;
  Sequence& sequence = sequence_of(*job);
  if (!sequence.prefill_started()) {
    sequence.failure = stepper_->start_prefill(sequence);
    if (!sequence.failure.ok()) return;
  }
  const absl::StatusOr<int64_t> work = stepper_->prefill_unit(sequence);
  if (!work.ok()) {
    sequence.failure = work.status();
    return;
  }
  scheduler_.prefill_progress(*job, *work);
  if (sequence.phase == SequencePhase::kDecode) {
    scheduler_.prefill_done(*job);
    changed_ = true;
  } else {
    report_progress(sequence);
  }
}

void EngineImpl::report_progress(Sequence& sequence) {
  const absl::Time now = options_.clock();
  if (now - sequence.progress_at < kProgressInterval) return;
  sequence.progress_at = now;
  const double stages = model_.shape().layers + (sequence.request->prompt_logprobs ? 1 : 0);
  const double row_share = static_cast<double>(sequence.row) / sequence.prompt_tokens();
  sequence.sink->on_progress((sequence.layer + row_share) / stages);
}

// Takes the ended sequences out and gives back what they hold; their sinks are told at the end of the step.
void EngineImpl::collect_done() {
  const uint64_t token_bytes = model_.shape().kv_bytes_per_token(KvDtype::kF16);
  for (const std::shared_ptr<Sequence>& sequence : sequences_) {
    if (!sequence->done()) continue;
    sequence->ended_at = options_.clock();
    recorder_.count_end(*sequence);
    Ending ending{.sequence = sequence, .outcome = sequence->failure};
    if (sequence->failure.ok()) {
      RequestResult result = sequence->take_result(token_bytes, stepper_->shared_workspace_bytes());
      recorder_.count_result(*sequence, result);
      ending.outcome = std::move(result);
    }
    stepper_->release(*sequence);
    scheduler_.remove(sequence->job);
    endings_.push_back(std::move(ending));
    changed_ = true;
  }
  std::erase_if(sequences_, [](const std::shared_ptr<Sequence>& sequence) { return sequence->done(); });
}

void EngineImpl::publish(absl::Time now) {
  auto snapshot = std::make_shared<Snapshot>(
      Snapshot{.stats = recorder_.snapshot(sequences_, stepper_->cache(), now), .room = scheduler_.room()});
  EngineStats& stats = snapshot->stats;
  stats.reserved_bytes = snapshot->room.reserved_pages * static_cast<uint64_t>(options_.page_bytes);
  stats.workspace_bytes = stepper_->shared_workspace_bytes() + scheduler_.workspace_bytes();
  if (options_.at_step) options_.at_step(stats);
  latest_.set(std::move(snapshot));
  snapshot_at_ = now;
  changed_ = false;
}

void EngineImpl::deliver() {
  if (endings_.empty()) return;
  for (const Ending& ending : endings_) {
    if (const auto* result = std::get_if<RequestResult>(&ending.outcome)) {
      ending.sequence->sink->on_end(*result);
    } else {
      ending.sequence->sink->on_error(std::get<absl::Status>(ending.outcome));
    }
  }
  {
    std::lock_guard lock(mutex_);
    for (const Ending& ending : endings_) live_.erase(ending.sequence->sink.get());
    idle_.notify_all();
  }
  endings_.clear();
}

Sequence& EngineImpl::sequence_of(JobId job) {
  const auto found = std::find_if(sequences_.begin(), sequences_.end(), [&](const auto& s) { return s->job == job; });
  PKV_CHECK(found != sequences_.end(), "a job without a sequence");
  return **found;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Engine>> Engine::create(const Model& model, const EngineOptions& options) {
  if (absl::Status status = check_options(options); !status.ok()) return status;
  EngineOptions resolved = options;
  resolved.prefill_chunk_rows = std::min(options.prefill_chunk_rows, options.step_tokens);
  absl::StatusOr<std::unique_ptr<Stepper>> stepper = Stepper::create(model, resolved);
  if (!stepper.ok()) return stepper.status();
  return std::make_unique<EngineImpl>(model, resolved, *std::move(stepper));
}

}  // namespace pkv
