// The engine: what other threads may call.
#include "server/engine/engine.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"
#include "kernels/status_macros.h"
#include "server/engine/engine_impl.h"

namespace pkv {
namespace {

absl::Status check_options(const EngineOptions& options) {
  const struct {
    const char* name;
    int64_t value;
  } at_least_one[] = {{"max_running", options.max_running}, {"max_waiting", options.max_waiting},
                      {"step_tokens", options.step_tokens}, {"prefill_chunk_rows", options.prefill_chunk_rows},
                      {"step_rows", options.step_rows},     {"concurrent_prefills", options.concurrent_prefills}};
  for (const auto& [name, value] : at_least_one) {
    if (value < 1)
      return absl::InvalidArgumentError(absl::StrCat("scheduler.", name, ": must be at least 1, got ", value));
  }
  return absl::OkStatus();
}

// With the backend's choices where there are none, and units that fit into a step.
EngineOptions resolve(EngineOptions options, const Backend& backend) {
  const BackendTraits traits = backend.traits();
  if (options.step_rows == 0) options.step_rows = traits.step_rows;
  if (options.page_bytes == 0) options.page_bytes = traits.page_bytes;
  if (options.prefill_chunk_rows == 0) options.prefill_chunk_rows = traits.prefill_rows;
  options.prefill_chunk_rows = std::min(options.prefill_chunk_rows, options.step_tokens);
  return options;
}

}  // namespace

EngineImpl::EngineImpl(const Model& model, const EngineOptions& options, std::unique_ptr<ModelRunner> runner)
    : model_(model),
      options_(options),
      runner_(std::move(runner)),
      scheduler_(limits()),
      recorder_(model.shape()),
      rules_(model.shape(), runner_->cache().geometry(), limits(), options_.make_policy, model.backend().traits()) {
  publish(options_.clock());
  thread_ = std::jthread([this] { run(); });
}

Scheduler::Limits EngineImpl::limits() const {
  return {.pool_pages = static_cast<uint64_t>(runner_->cache().pool().total()),
          .workspace_bytes = options_.workspace_bytes,
          .max_running = options_.max_running,
          .concurrent_prefills = options_.concurrent_prefills};
}

absl::Status EngineImpl::submit(Prepared prepared, const JobClaim& claim, std::shared_ptr<TokenSink> sink) {
  auto sequence = std::make_shared<Sequence>(std::move(prepared), claim, std::move(sink), options_.clock());
  std::lock_guard lock(mutex_);
  if (state_ == State::kFailed) return absl::UnavailableError("the engine has failed");
  if (state_ != State::kServing) return absl::UnavailableError("the server is shutting down");
  if (waiting_ >= static_cast<size_t>(options_.max_waiting)) {
    return absl::ResourceExhaustedError(absl::StrCat("the queue is full: ", waiting_, " requests are waiting"));
  }
  const bool fresh = live_.emplace(&sequence->sink(), sequence).second;
  PKV_CHECK(fresh, "a sink serves one request at a time");
  sequence->set_job(next_job_++);
  ++waiting_;
  incoming_.push_back(std::move(sequence));
  if (heartbeat_ == 0) beat();  // a thread that does not wake has stalled too
  wake_.notify_one();
  return absl::OkStatus();
}

void EngineImpl::cancel(const TokenSink* sink) {
  // Looked up here and now: later, another sink could lie at the same address.
  std::lock_guard lock(mutex_);
  if (const auto found = live_.find(sink); found != live_.end()) found->second->cancel();
}

bool EngineImpl::has_room(const Contract& contract) const {
  const bool has_room = latest_.get()->room.admits(contract.cost);
  std::lock_guard lock(mutex_);
  return !contract.refusal && waiting_ == 0 && has_room;
}

void EngineImpl::close() {
  std::lock_guard lock(mutex_);
  if (state_ == State::kServing) state_ = State::kDraining;
}

bool EngineImpl::drain(absl::Time deadline) {
  close();
  std::unique_lock lock(mutex_);
  while (!live_.empty()) {
    const absl::Duration left = deadline - options_.clock();
    if (left <= absl::ZeroDuration()) break;
    idle_.wait_for(lock, absl::ToChronoMilliseconds(std::min(left, absl::Hours(1))) + std::chrono::milliseconds(1));
  }
  aborting_ = true;
  const bool ended =
      idle_.wait_for(lock, absl::ToChronoNanoseconds(options_.abort_time), [&] { return live_.empty(); });
  if (ended && state_ != State::kFailed) state_ = State::kStopped;
  stopping_ = true;
  wake_.notify_one();
  return ended;
}

absl::Status EngineImpl::failure() const {
  std::lock_guard lock(mutex_);
  return failure_;
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

absl::StatusOr<std::unique_ptr<Engine>> Engine::create(const Model& model, const EngineOptions& options) {
  const EngineOptions resolved = resolve(options, model.backend());
  PKV_RETURN_IF_ERROR(check_options(resolved));
  PKV_ASSIGN_OR_RETURN(std::unique_ptr<ModelRunner> runner, ModelRunner::create(model, resolved));
  model.backend().sync();  // the weights are there, or it says why not
  PKV_RETURN_IF_ERROR(model.backend().status());
  return std::make_unique<EngineImpl>(model, resolved, std::move(runner));
}

}  // namespace pkv
