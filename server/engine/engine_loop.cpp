// The loop of the one thread that owns scheduler, cache and model.
#include <algorithm>
#include <chrono>
#include <exception>
#include <optional>
#include <utility>

#include "kernels/check.h"
#include "kernels/status_macros.h"
#include "server/engine/engine_impl.h"

namespace pkv {
namespace {

constexpr absl::Duration kSnapshotInterval = absl::Milliseconds(50);  // at most, while there is something to do

bool generates(const Sequence& sequence) { return sequence.phase() == Sequence::Phase::kDecode && !sequence.done(); }

}  // namespace

int64_t EngineImpl::steady_nanoseconds() {
  return std::chrono::nanoseconds(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void EngineImpl::run() {
  // What a failure leaves half done cannot be trusted any more; the callers can still be told.
  try {
    const absl::Status status = loop();
    if (!status.ok()) fail(status.message());
  } catch (const std::exception& exception) {
    fail(exception.what());
  } catch (...) {
    fail("an exception of unknown kind");
  }
}

absl::Status EngineImpl::loop() {
  while (take_incoming()) {
    if (!sequences_.empty()) PKV_RETURN_IF_ERROR(step());
    deliver();
  }
  return absl::OkStatus();
}

// Sleeps while there is nothing to do. False: the thread is to end.
bool EngineImpl::take_incoming() {
  std::unique_lock lock(mutex_);
  if (incoming_.empty() && sequences_.empty()) heartbeat_ = 0;
  // Where anything waits, something runs: whatever was let in fits when it is alone. So there is no deadline to wake
  // for.
  const auto has_work = [&] { return !incoming_.empty() || !sequences_.empty(); };
  if (endings_.empty()) {
    wake_.wait(lock, [&] { return has_work() || stopping_; });
  } else {
    wake_.wait_for(lock, kMemoryPause, has_work);
  }
  for (std::shared_ptr<Sequence>& sequence : incoming_) {
    scheduler_.enqueue(sequence->job(), sequence->contract().cost, sequence->claim());
    sequences_.push_back(std::move(sequence));
  }
  changed_ = changed_ || !incoming_.empty();
  incoming_.clear();
  if (sequences_.empty() && endings_.empty()) return false;
  beat();
  return true;
}

// Wherever the host has read something of the backend, the backend's status is looked at before anybody is told: what a
// failed one gives is zeros.
absl::Status EngineImpl::step() {
  fail_unwanted(options_.clock());
  PKV_RETURN_IF_ERROR(collect_done());
  admit();
  PKV_RETURN_IF_ERROR(decode_step());
  beat();
  PKV_RETURN_IF_ERROR(units_step());
  PKV_RETURN_IF_ERROR(collect_done());
  const absl::Time now = options_.clock();
  recorder_.count_step(runner_->take_rows_run(), decoded_);
  recorder_.count_progress(sequences_, now);
  if (changed_ || options_.at_step || absl::AbsDuration(now - snapshot_at_) >= kSnapshotInterval) publish(now);
  return absl::OkStatus();
}

void EngineImpl::fail_unwanted(absl::Time now) {
  bool aborting;
  {
    std::lock_guard lock(mutex_);
    aborting = aborting_;
  }
  for (const std::shared_ptr<Sequence>& sequence : sequences_) {
    // gRPC also cancels a call whose deadline has passed; it ended for the deadline all the same.
    const std::optional<absl::Time>& deadline = sequence->request().deadline;
    if (deadline && *deadline <= now) {
      sequence->fail(absl::DeadlineExceededError("the deadline has passed"));
    } else if (sequence->cancelled()) {
      sequence->fail(absl::CancelledError("cancelled by the caller"));
    } else if (aborting) {
      sequence->fail(absl::UnavailableError("the server is shutting down"));
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
  for (const JobId job : jobs) sequence_of(job).admit();
}

absl::Status EngineImpl::decode_step() {
  decoding_.clear();
  decoded_ = decoded_rows_ = 0;
  attended_tokens_ = 0;
  const uint64_t token_bytes = model_.shape().kv_bytes_per_token(KvDtype::kF16);
  const int64_t row_work = model_row_work(model_.shape());
  for (const std::shared_ptr<Sequence>& sequence : sequences_) {
    if (!generates(*sequence) || ModelRunner::needs_refresh(*sequence)) continue;
    ++decoded_;
    const Comparison* comparison = sequence->comparison();
    const size_t rows = comparison == nullptr ? 1 : comparison->rows(sequence->answered());
    decoded_rows_ += rows;
    attended_tokens_ += static_cast<int64_t>(rows * (sequence->lanes()->bytes().held / token_bytes));
    scheduler_.decode_progress(sequence->job(), static_cast<int64_t>(rows) * row_work);
    if (comparison != nullptr) {
      PKV_RETURN_IF_ERROR(runner_->decode_comparison(*sequence));
    } else {
      decoding_.push_back(sequence.get());
    }
  }
  return decoding_.empty() ? absl::OkStatus() : runner_->decode(decoding_);
}

// What is done beside the decode rows: scores that answers wait for, and prompts. Where both wait each has half.
absl::Status EngineImpl::units_step() {
  const int64_t most = runner_->step_work().beside(decoded_rows_, attended_tokens_);
  const bool prompts_wait = std::ranges::any_of(
      sequences_, [](const auto& sequence) { return sequence->phase() == Sequence::Phase::kPrefill; });
  const int64_t refreshed = refresh_step(prompts_wait ? most / 2 : most);
  return prompts_wait ? prefill_step(std::max(most - refreshed, most / 2)) : absl::OkStatus();
}

// A unit for each answer that waits, in turn, until `most` is done. Returns the work.
int64_t EngineImpl::refresh_step(int64_t most) {
  // The first behind the one whose turn was last; behind the last comes the first.
  const auto next = [&]() -> Sequence* {
    Sequence* first = nullptr;
    for (const std::shared_ptr<Sequence>& sequence : sequences_) {
      if (!generates(*sequence) || !ModelRunner::needs_refresh(*sequence)) continue;
      if (sequence->job() > last_refreshed_) return sequence.get();
      if (first == nullptr) first = sequence.get();
    }
    return first;
  };
  int64_t done = 0;
  for (Sequence* sequence = next(); sequence != nullptr && done < most; sequence = next()) {
    last_refreshed_ = sequence->job();
    const int64_t work = ModelRunner::refresh_unit(*sequence, std::min(runner_->step_work().least(), most - done));
    scheduler_.decode_progress(last_refreshed_, work);
    done += work;
    beat();
  }
  return done;
}

// One unit; beside decode steps as many as `most` has room for, but for a rest that is not worth one.
absl::Status EngineImpl::prefill_step(int64_t most) {
  const absl::Time begin = options_.clock();
  int64_t left = most, work = 0;
  do {
    PKV_ASSIGN_OR_RETURN(work, prefill_unit(left));
    left -= work;
    beat();
  } while (work > 0 && decoded_rows_ > 0 && 2 * left >= runner_->step_work().least());
  if (left < most) prompt_rate_.add(most - left, options_.clock() - begin);
  return absl::OkStatus();
}

// The work that was done, `most` about; 0 where there is nothing to do, or where it failed.
absl::StatusOr<int64_t> EngineImpl::prefill_unit(int64_t most) {
  const std::optional<JobId> job = scheduler_.next_prefill();
  if (!job) return 0;
  Sequence& sequence = sequence_of(*job);
  absl::Status started = sequence.prefill_started() ? absl::OkStatus() : runner_->start_prefill(sequence);
  const absl::StatusOr<int64_t> work = started.ok() ? runner_->prefill_unit(sequence, most) : std::move(started);
  PKV_RETURN_IF_ERROR(model_.backend().status());  // before one request gets the blame
  if (!work.ok()) {
    sequence.fail(work.status());
    return 0;
  }
  scheduler_.prefill_progress(*job, *work);
  if (sequence.phase() == Sequence::Phase::kDecode) {
    scheduler_.prefill_done(*job);
    changed_ = true;
  } else {
    sequence.report_progress(model_.shape().layers, options_.clock());
  }
  return *work;
}

// Takes the ended sequences out and gives back what they hold; their sinks are told after the step.
absl::Status EngineImpl::collect_done() {
  const uint64_t token_bytes = model_.shape().kv_bytes_per_token(KvDtype::kF16);
  for (const std::shared_ptr<Sequence>& sequence : sequences_) {
    if (!sequence->done()) continue;
    sequence->set_ended(options_.clock());
    recorder_.count_end(*sequence);
    Ending ending{.sequence = sequence, .outcome = sequence->failure()};
    if (sequence->failure().ok()) {
      std::vector<Fetch> reads;
      sequence->read_final_positions(reads);
      if (!reads.empty()) model_.backend().fetch(reads);
      PKV_RETURN_IF_ERROR(model_.backend().status());
      RequestResult result = sequence->take_result(token_bytes, runner_->shared_workspace_bytes());
      recorder_.count_result(*sequence, result);
      ending.outcome = std::move(result);
    }
    sequence->release();
    scheduler_.remove(sequence->job());
    endings_.push_back(std::move(ending));
    changed_ = true;
  }
  std::erase_if(sequences_, [](const std::shared_ptr<Sequence>& sequence) { return sequence->done(); });
  return absl::OkStatus();
}

std::shared_ptr<EngineImpl::Snapshot> EngineImpl::make_snapshot(absl::Time now) {
  auto snapshot = std::make_shared<Snapshot>(
      Snapshot{.stats = recorder_.snapshot(sequences_, runner_->cache(), now), .room = scheduler_.room()});
  EngineStats& stats = snapshot->stats;
  stats.reserved_bytes = snapshot->room.reserved_pages * static_cast<uint64_t>(options_.page_bytes);
  stats.workspace_bytes = runner_->shared_workspace_bytes() + scheduler_.workspace_bytes();
  stats.device = model_.backend().device_memory();
  return snapshot;
}

void EngineImpl::publish(absl::Time now) {
  std::shared_ptr<Snapshot> snapshot = make_snapshot(now);
  if (options_.at_step) options_.at_step(snapshot->stats);
  latest_.set(std::move(snapshot));
  snapshot_at_ = now;
  changed_ = false;
}

// Whom there is no memory to tell, the next time.
void EngineImpl::deliver() {
  if (endings_.empty()) return;
  for (Ending& ending : endings_) {
    if (!ending.sequence->told())
      ending.sequence->tell_end(ending.outcome);  // the last time a later sink may have thrown
  }
  {
    std::lock_guard lock(mutex_);
    for (const Ending& ending : endings_) {
      if (ending.sequence->told()) live_.erase(&ending.sequence->sink());
    }
    idle_.notify_all();
  }
  std::erase_if(endings_, [](const Ending& ending) { return ending.sequence->told(); });
}

Sequence& EngineImpl::sequence_of(JobId job) {
  const auto found = std::find_if(sequences_.begin(), sequences_.end(), [&](const auto& s) { return s->job() == job; });
  PKV_CHECK(found != sequences_.end(), "a job without a sequence");
  return **found;
}

}  // namespace pkv
