#include "server/api/generation_call.h"

#include <algorithm>
#include <limits>
#include <new>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "kernels/status_macros.h"
#include "server/api/deadline_check.h"
#include "server/api/engine_errors.h"
#include "server/api/errors.h"
#include "server/api/gate.h"
#include "server/engine/cache_report.h"
#include "server/engine/engine.h"
#include "server/policy/registry.h"
#include "server/text/cancelled.h"

namespace pkv {
namespace {

// Progress is told in steps of at least this share.
constexpr double kProgressStep = 0.01;
// That a message made on the delivery thread lists at most: a few milliseconds' worth. Log-probabilities of a long
// prompt are split into such ones, which also stay far below what clients accept (4 MiB by default).
constexpr size_t kMaxNumbers = 1024;
// Progress is noted in the log, at debug, in steps of this share.
constexpr double kProgressNoted = 0.25;

// Of an answer in one piece, whose parts nobody takes before its end.
absl::Status reply_too_large(size_t bytes, size_t limit) {
  return make_error(
      {.reason = kReplyTooLarge,
       .description = absl::StrCat("the answer has ", bytes, " bytes already, and a reply has at most ", limit,
                                   " (server.max_message_bytes); take it as a stream, or ask for "
                                   "a shorter one (max_tokens)"),
       .metadata = {{"max", std::to_string(limit)}, {"got", std::to_string(bytes)}}});
}

absl::Status slow_reader(size_t bytes, size_t limit) {
  return make_error({.reason = kSlowReader,
                     .description = absl::StrCat("the answer is read too slowly: ", bytes,
                                                 " bytes of it wait, and server.max_unread_bytes is ", limit),
                     .metadata = {{"max", std::to_string(limit)}, {"got", std::to_string(bytes)}}});
}

}  // namespace

void GenerationCall::start(uint64_t bytes, Reader read) {
  attempt([&] { return begin(bytes, std::move(read)); });
}

// Refuses the call with what `work` comes to. Where there is no memory for that, as soon as there is some.
void GenerationCall::attempt(absl::FunctionRef<absl::Status()> work) {
  const absl::Status status = blame_deadline(outcome_of(work), info_.deadline);
  if (!status.ok()) once_there_is_memory([&] { refuse(status); });
}

absl::Status GenerationCall::begin(uint64_t bytes, Reader read) {
  PKV_ASSIGN_OR_RETURN(WaitingRoom::Place place, admit_call(state_, bytes, info_));
  {
    const std::lock_guard lock(mutex_);
    place_ = std::move(place);
    life_.note("received", {{"bytes", bytes}});
  }
  return post_preparation(state_, bytes, info_,
                          [self = shared_from_this(), read = std::move(read)] { self->prepare(read); });
}

void GenerationCall::prepare(const Reader& read) {
  attempt([&]() -> absl::Status {
    info_.listed->enter(CallPhase::kPreparing);
    const std::stop_token stop = stop_.get_token();
    if (stop.stop_requested()) return cancelled_by_caller();
    PKV_ASSIGN_OR_RETURN(AcceptedRequest accepted, read(info_, stop));
    return submit(std::move(accepted));
  });
}

absl::Status GenerationCall::submit(AcceptedRequest accepted) {
  Engine& engine = *accepted.served->engine;
  const size_t tokens = accepted.valid.request().prompt.size();
  if (!take_tokens(tokens)) return queue_full_of_tokens(state_, tokens);
  {
    const std::lock_guard lock(mutex_);
    served_ = accepted.served;
    request_ = accepted.valid.prepared.request();
    report_ = accepted.valid.report;
    options_ = std::move(accepted.valid.output);
    output_.emplace(*served_->tokenizer, *request_, options_);
    note_prepared(accepted.valid.prepared.contract(), accepted.claim);
    if (stop_.stop_requested()) return cancelled_by_caller();
  }
  info_.listed->enter(CallPhase::kEngine);  // before the engine can end it
  const absl::Status submitted = engine.submit(std::move(accepted.valid.prepared), accepted.claim, shared_from_this());
  if (!submitted.ok()) return submit_error(submitted, engine.state());
  bool cancelled = false;
  {
    const std::lock_guard lock(mutex_);
    submitted_ = true;
    cancelled = stop_.stop_requested();
  }
  if (cancelled) engine.cancel(this);
  return absl::OkStatus();
}

bool GenerationCall::take_tokens(size_t tokens) {
  const std::lock_guard lock(mutex_);
  return place_.take_tokens(tokens);
}

// With its place in the queue: so many wait now, of whom its claim may pass some.
void GenerationCall::note_prepared(const Contract& contract, const JobClaim& claim) {
  if (!life_.wanted()) return;
  life_.note("prepared", {{"policy", policy_row(request_->policy.kind).name},
                          {"prompt_tokens", request_->prompt.size()},
                          {"max_tokens", request_->sampling.max_tokens},
                          {"steady_bytes", contract.steady_bytes},
                          {"peak_bytes", contract.peak_bytes},
                          {"workspace_bytes", contract.cost.workspace_bytes},
                          {"state_bytes", contract.cost.state_bytes}});
  life_.note("queued", {{"priority", claim.priority}, {"waiting", served_->engine->stats()->waiting}});
}

void GenerationCall::cancel() {
  {
    const std::lock_guard lock(mutex_);
    if (stop_.request_stop()) life_.note("cancelled");
    if (!submitted_) return;
  }
  served_->engine->cancel(this);
}

// An end that counts as a refusal, unless it is the caller's own doing.
void GenerationCall::refuse(const absl::Status& error) {
  const std::lock_guard lock(mutex_);
  if (error_.ok() && !absl::IsCancelled(error)) state_.metrics().count_rejection(error_reason(error));
  end(error);
}

void GenerationCall::end(const absl::Status& error) {
  if (error_.ok()) error_ = error;
  life_.note("ended", {{"code", status_code_name(error_.code())}});
  leave_queue_and_engine();
  wake_locked();
}

void GenerationCall::leave_queue_and_engine() {
  place_.leave();
  if (info_.listed != nullptr) info_.listed->enter(CallPhase::kDelivering);
}

void GenerationCall::on_start() {
  const std::lock_guard lock(mutex_);
  started_ = true;
  life_.note("admitted");
  place_.leave();
  wake_locked();
}

void GenerationCall::on_progress(double prefill_done) {
  const std::lock_guard lock(mutex_);
  progress_ = prefill_done;
  if (progress_ >= progress_noted_ + kProgressNoted) {
    progress_noted_ = progress_;
    life_.note("reading", {{"share", progress_}});
  }
  wake_locked();
}

void GenerationCall::on_prompt_logprobs(std::span<const TokenLogprob> tokens) {
  const std::lock_guard lock(mutex_);
  output_->add_prompt_logprobs(tokens);
}

bool GenerationCall::on_token(const TokenLogprob& token) {
  const size_t limit = whole_ ? limits_->max_reply_bytes : limits_->max_unread_bytes;
  bool goes_on = true, too_much = false;
  {
    const std::lock_guard lock(mutex_);
    if (generated_++ == 0) {
      first_token_ = absl::Now();
      life_.note("first token");
    }
    if (!error_.ok()) return true;  // it is being cancelled
    goes_on = output_->add_token(token);
    too_much = output_->unread_bytes() > limit;
    if (too_much) {
      error_ = (whole_ ? reply_too_large : slow_reader)(output_->unread_bytes(), limit);
      output_->drop();
    }
    wake_locked();
  }
  if (too_much) {
    state_.metrics().count_rejection(whole_ ? kReplyTooLarge : kSlowReader);
    served_->engine->cancel(this);
  }
  return goes_on;
}

void GenerationCall::on_end(RequestResult result) {
  const std::lock_guard lock(mutex_);
  leave_queue_and_engine();
  output_->finish(result);
  result_ = std::move(result);
  note_result();
  wake_locked();
}

void GenerationCall::note_result() {
  if (!life_.wanted()) return;
  const auto seconds = [](absl::Duration duration) { return absl::ToDoubleSeconds(duration); };
  life_.note("ended", {{"code", "OK"},
                       {"generated_tokens", result_->completion_tokens},
                       {"compressed_layers", result_->cache.compressions},
                       {"evicted_entries", result_->cache.evicted_entries},
                       {"allocated_bytes", result_->cache.bytes.allocated},
                       {"peak_bytes", result_->cache.bytes.peak},
                       {"queue_seconds", seconds(result_->timings.queue)},
                       {"prefill_seconds", seconds(result_->timings.prefill)},
                       {"compress_seconds", seconds(result_->timings.compress)},
                       {"decode_seconds", seconds(result_->timings.decode)}});
}

void GenerationCall::on_error(const absl::Status& status) {
  const absl::Status error = running_error(status, served_->engine->state());
  const std::string reason = error_reason(error);
  if (reason == kRecallNotReached || reason == kNotANumber || reason == kOutOfMemory) return refuse(error);
  const std::lock_guard lock(mutex_);
  end(error);
}

void GenerationCall::sent(bool ok) {
  {
    const std::lock_guard lock(mutex_);
    sending_ = false;
    lost_ = lost_ || !ok;
    wake_locked();
  }
  if (!ok) cancel();
}

void GenerationCall::read_too_slowly() {
  const std::lock_guard lock(mutex_);
  if (!error_.ok() || told_) return;
  const std::string limit = absl::StrCat(state_.limits()->max_unread_seconds);
  error_ = make_error({.reason = kSlowReader,
                       .description = absl::StrCat("the answer is read too slowly: a part of it was not taken within ",
                                                   limit, " s (server.max_unread_seconds); read it as it comes"),
                       .metadata = {{"max_seconds", limit}}});
  if (output_) output_->drop();
}

void GenerationCall::wake_locked() {
  if (delivery_ == Delivery::kIdle) {
    post_delivery();
  } else if (delivery_ == Delivery::kRunning) {
    delivery_ = Delivery::kRunningAndDue;
  }
}

// std::bad_alloc: nothing has changed.
void GenerationCall::post_delivery() {
  const bool large = next_kind() == Kind::kEnd && end_is_large();
  WorkerPool& pool = large ? state_.building() : state_.delivery();
  pool.post([self = shared_from_this()] { self->run_delivery(); });
  delivery_ = Delivery::kPosted;  // before it begins, which takes the mutex
  building_ = large;
}

void GenerationCall::run_delivery() {
  std::vector<CallLife::Step> steps;
  {
    const std::lock_guard lock(mutex_);
    delivery_ = Delivery::kRunning;
    steps = life_.take();
  }
  try {
    write_life(state_.log(), info_.request_id, info_.arrived, steps);
    deliver();
  } catch (const std::bad_alloc&) {
    while (!give_up_answer()) absl::SleepFor(kMemoryPause);
  }
  while (!end_delivery()) absl::SleepFor(kMemoryPause);
}

// False: there is no memory to post what came meanwhile.
bool GenerationCall::end_delivery() try {
  const std::lock_guard lock(mutex_);
  if (delivery_ == Delivery::kRunningAndDue) {
    post_delivery();
  } else {
    delivery_ = Delivery::kIdle;
  }
  return true;
} catch (const std::bad_alloc&) {
  return false;
}

GenerationCall::Kind GenerationCall::next_kind() const {
  if (told_ || sending_) return Kind::kNothing;
  if (error_.ok() && started_ && !start_told_ && !whole_) return Kind::kStart;
  if (!error_.ok() || (lost_ && result_)) return Kind::kError;
  if (result_ && (whole_ || !output_->ready())) return Kind::kEnd;
  if (whole_ || !start_told_) return Kind::kNothing;
  if (!output_->has_tokens() && progress_ >= progress_told_ + kProgressStep) return Kind::kProgress;
  return output_->ready() ? Kind::kPiece : Kind::kNothing;
}

// Once there is a result.
bool GenerationCall::end_is_large() const {
  return output_->untaken_numbers() + listed_numbers(*result_) > kMaxNumbers;
}

GenerationCall::Event GenerationCall::next_event() {
  const std::lock_guard lock(mutex_);
  Event event{.kind = next_kind()};
  if (event.kind == Kind::kEnd && !building_ && end_is_large()) {
    delivery_ = Delivery::kRunningAndDue;  // on the other pool
    return {};
  }
  if (event.kind == Kind::kError || event.kind == Kind::kEnd) {
    if (error_.ok() && event.kind == Kind::kError) error_ = absl::CancelledError("the client stopped reading");
    told_ = true;
    final_code_ = status_code_name(error_.code());
    if (event.kind == Kind::kEnd) event.piece = output_->take(std::numeric_limits<size_t>::max());
    return event;
  }
  if (event.kind == Kind::kNothing) return event;
  sending_ = true;
  if (event.kind == Kind::kStart) start_told_ = true;
  if (event.kind == Kind::kProgress) event.progress = progress_told_ = progress_;
  if (event.kind == Kind::kPiece)
    event.piece = output_->take(std::max<size_t>(kMaxNumbers / output_->token_numbers(), 1));
  return event;
}

void GenerationCall::deliver() {
  Event event = next_event();
  if (event.kind == Kind::kEnd || event.kind == Kind::kError) {
    if (info_.key != nullptr) info_.key->release();  // before the caller hears of the end, and may call again
  }
  switch (event.kind) {
    case Kind::kNothing:
      return;
    case Kind::kStart:
      return send_start();
    case Kind::kProgress:
      return send_progress(event.progress);
    case Kind::kPiece:
      return send_piece(std::move(event.piece));
    case Kind::kEnd:
      sort_positions(*result_);
      send_end(std::move(event.piece));
      return count_end();
    case Kind::kError:
      send_error();
      return count_end();
  }
}

void GenerationCall::count_end() {
  state_.metrics().count_end(request_ == nullptr ? kNoPolicy : policy_row(request_->policy.kind).name, final_code_);
}

// No memory for the message that was to be sent: instead of it, the call's end. False: there is none for that either.
bool GenerationCall::give_up_answer() try {
  bool told = false;
  {
    const std::lock_guard lock(mutex_);
    if (error_.ok()) {
      error_ = out_of_memory();
      state_.metrics().count_rejection(kOutOfMemory);
    }
    if (output_) output_->drop();
    told = told_;
    if (told) {
      final_code_ = status_code_name(error_.code());
    } else {
      sending_ = false;
      wake_locked();
    }
  }
  if (!told) {
    cancel();
    return true;
  }
  send_error();
  count_end();
  return true;
} catch (const std::bad_alloc&) {
  return false;
}

void GenerationCall::log_end() {
  CallOutcome outcome{.policy = kNoPolicy};
  std::vector<CallLife::Step> steps;
  {
    const std::lock_guard lock(mutex_);  // the engine thread may still be in the call that ended it
    life_.note("delivered");
    steps = life_.take();
    outcome.status = error_;
    outcome.code = final_code_;
    if (request_ != nullptr) {
      outcome.policy = policy_row(request_->policy.kind).name;
      outcome.prompt_tokens = request_->prompt.size();
      outcome.generated_tokens = generated_;
    }
    outcome.first_token = first_token_;
    if (result_) {
      outcome.kept_share = kept_share(result_->cache);
      outcome.recall = mean_recall(result_->cache);
    }
  }
  write_life(state_.log(), info_.request_id, info_.arrived, steps);
  log_access(state_.log(), info_, outcome);
  const std::string reason = error_reason(outcome.status);
  if (reason == kNotANumber) {
    state_.log().error(std::string(outcome.status.message()), {{"request_id", info_.request_id}});
  } else if (absl::IsInternal(outcome.status) && reason.empty()) {
    // Its words may be the caller's.
    state_.log().error("a fault of the server; its words went to the caller", {{"request_id", info_.request_id}});
  }
}

}  // namespace pkv
