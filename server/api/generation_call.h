// One generation between its caller and the engine, whichever way it came. It is the engine's sink, and the mailbox in
// which tokens wait until the delivery thread hands them to the caller's transport; subclasses are the transports. A
// call goes: gate (start()), preparation thread, engine, delivery thread. Of a stream one message is under way at a
// time and what comes meanwhile is merged into the next, so neither the engine nor the delivery thread waits for a slow
// client; what it leaves unread is bounded in bytes. An end that takes long to make, for a whole answer or a report of
// positions, is made and handed on by a building thread instead: nobody else's token waits for it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "server/api/accept.h"
#include "server/api/access_log.h"
#include "server/api/call_life.h"
#include "server/api/conversion.h"
#include "server/api/output_assembler.h"
#include "server/api/server_state.h"
#include "server/api/validation.h"
#include "server/engine/request_result.h"

namespace pkv {

class GenerationCall : public TokenSink, public std::enable_shared_from_this<GenerationCall> {
 public:
  // Makes the request of what the caller sent. It is called on a preparation thread, once, if at all, and ends soon
  // after `stop` was requested: the call is cancelled.
  using Reader = std::function<absl::StatusOr<AcceptedRequest>(CallInfo& info, const std::stop_token& stop)>;

  GenerationCall(ServerState& state, CallInfo info)
      : state_(state), limits_(state.limits()), info_(std::move(info)), life_(state.log()) {
    ++state_.open_calls();
  }
  ~GenerationCall() override { --state_.open_calls(); }

  // Returns at once. What is refused at the gate, before `read` is called, ends the call like everything else: by
  // send_error(). `bytes`: of the message.
  void start(uint64_t bytes, Reader read);
  // The caller is gone or gave up; from any thread. The call ends soon.
  void cancel();
  // Once the caller has its answer or is gone. Writing a log may block, so never on the engine thread.
  void log_end();

  // ---- on the engine thread
  void on_start() override;
  void on_progress(double prefill_done) override;
  void on_prompt_logprobs(std::span<const TokenLogprob> tokens) override;
  bool on_token(const TokenLogprob& token) override;
  void on_end(RequestResult result) override;
  void on_error(const absl::Status& status) override;

 protected:
  // The answer is handed on in one piece. Only from within the Reader, or before start().
  void answer_whole() { whole_ = true; }

  // To the transport, on the delivery thread, a large end on a building thread; one at a time. Of a stream: each is
  // answered by sent().
  virtual void send_start() { sent(true); }
  virtual void send_progress(double /*prefill_done*/) { sent(true); }
  virtual void send_piece(OutputAssembler::Piece /*piece*/) { sent(true); }
  // Either of these is the last. `rest`: the whole answer, where it is handed on in one piece. Where one throws
  // std::bad_alloc, nothing of it was sent, and send_error() is called.
  virtual void send_end(OutputAssembler::Piece rest) = 0;
  virtual void send_error() = 0;
  // What was sent is on its way, or, where it is not `ok`, never will be: the client is gone. From any thread.
  void sent(bool ok);
  // The message under way has not been taken for as long as the transport allows: the call is about to be cancelled.
  void read_too_slowly();

  // What is known when it starts, its result when it ends; from then on they do not change.
  const ServedModel& served() const { return *served_; }
  const Request& request() const { return *request_; }
  ReportDetail report() const { return report_; }
  const OutputOptions& output() const { return options_; }
  const RequestResult& result() const { return *result_; }
  // Of the whole: what set_ending() tells.
  AnswerEnding ending() const {
    return {.result = *result_, .request = *request_, .report = report_, .matched_stop = output_->matched_stop()};
  }
  // Once it is sent.
  const absl::Status& error() const { return error_; }

  ServerState& state() const { return state_; }
  const CallInfo& info() const { return info_; }

 private:
  enum class Delivery : uint8_t { kIdle, kPosted, kRunning, kRunningAndDue };

  // What is to be sent next; kEnd or kError last, and then nothing.
  enum class Kind : uint8_t { kNothing, kStart, kProgress, kPiece, kEnd, kError };
  struct Event {
    Kind kind = Kind::kNothing;
    double progress = 0;
    OutputAssembler::Piece piece;
  };

  void attempt(absl::FunctionRef<absl::Status()> work);
  absl::Status begin(uint64_t bytes, Reader read);
  void prepare(const Reader& read);
  absl::Status submit(AcceptedRequest accepted);
  bool take_tokens(size_t tokens);
  void wake_locked();
  void post_delivery();
  void run_delivery();
  bool end_delivery();
  void deliver();
  bool give_up_answer();
  void count_end();
  void note_prepared(const Contract& contract, const JobClaim& claim);
  void note_result();
  Kind next_kind() const;
  bool end_is_large() const;
  Event next_event();
  void refuse(const absl::Status& error);
  void end(const absl::Status& error);
  void leave_queue_and_engine();

  ServerState& state_;
  const std::shared_ptr<const FrontLimits> limits_;  // with which it began
  CallInfo info_;
  bool whole_ = false;
  std::stop_source stop_;  // requested with the mutex held: the call is cancelled

  // Set before the request is submitted.
  const ServedModel* served_ = nullptr;
  std::shared_ptr<const Request> request_;
  ReportDetail report_ = ReportDetail::kSummary;
  OutputOptions options_;

  std::mutex mutex_;  // guards everything below; held for moments
  WaitingRoom::Place place_;
  CallLife life_;
  double progress_noted_ = 0;
  bool lost_ = false;     // the client
  bool sending_ = false;  // a message is under way
  bool submitted_ = false;
  std::optional<OutputAssembler> output_;
  bool started_ = false;
  bool start_told_ = false;
  double progress_ = 0;
  double progress_told_ = 0;
  std::optional<RequestResult> result_;
  absl::Status error_;
  bool told_ = false;     // its end
  size_t generated_ = 0;  // tokens
  std::optional<absl::Time> first_token_;
  std::string_view final_code_;
  Delivery delivery_ = Delivery::kIdle;
  bool building_ = false;  // it is on the pool for what is large
};

}  // namespace pkv
