// One generation between a caller and the engine: the part that unary and streamed calls share. It is the engine's
// sink, kept alive by the engine and by the reactor of its RPC; the reactor belongs to gRPC and is gone once the RPC is
// finished.
#pragma once

#include <grpcpp/grpcpp.h>

#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "server/api/access_log.h"
#include "server/api/conversion.h"
#include "server/api/output_assembler.h"
#include "server/api/server_state.h"
#include "server/api/validation.h"

namespace pkv {

class GenerationCall : public TokenSink {
 public:
  GenerationCall(const ServedModel& served, ServerState& state, ValidRequest valid, CallInfo info)
      : served_(served),
        state_(state),
        prepared_(std::move(valid.prepared)),
        request_(prepared_.request()),
        report_(valid.report),
        return_token_ids_(valid.output.return_token_ids),
        info_(std::move(info)),
        output_(*served.tokenizer, *request_, valid.output) {}

  // Hands the request to the engine, which may start at once. What the engine refuses ends the call.
  static void submit(const std::shared_ptr<GenerationCall>& call, grpc::CallbackServerContext& context);
  // The caller is gone or gave up. The engine answers with on_error, and that finishes the RPC.
  void cancel();
  // Once the RPC is done, on gRPC's thread: writing a log may block, which the engine must not.
  void log_end();

  // ---- on the engine thread
  void on_start() override;
  void on_progress(double prefill_done) override;
  void on_prompt_logprobs(std::span<const TokenLogprob> tokens) override;
  bool on_token(const TokenLogprob& token) override;
  void on_end(const RequestResult& result) override;
  void on_error(const absl::Status& status) override;

 protected:
  // Something changed: send what can be sent. The lock is held; must not block.
  virtual void advance() = 0;

  // Ends the call with an error that counts as a refusal.
  void refuse(const absl::Status& error);
  // Counts the RPC's end and makes the status to finish it with.
  grpc::Status close(const absl::Status& status);
  pyramidkv::v1::GenerateStreamResponse start_message() const;
  // Of a message that ends an answer: usage, timings, the report where it is wanted, and of the choice what ended it.
  template <typename Message>
  void set_ending(Message& message, pyramidkv::v1::Choice& choice) const;

  const ServedModel& served_;
  ServerState& state_;
  Prepared prepared_;  // until it is submitted
  const std::shared_ptr<const Request> request_;
  const ReportDetail report_;
  const bool return_token_ids_;
  const CallInfo info_;

  std::mutex mutex_;  // guards everything below
  OutputAssembler output_;
  bool started_ = false;
  double progress_ = 0;
  std::optional<RequestResult> result_;
  absl::Status error_;
  size_t generated_ = 0;  // tokens
  std::optional<absl::Time> first_token_;
  std::string_view final_code_;  // name of the status the RPC ended with
};

template <typename Message>
void GenerationCall::set_ending(Message& message, pyramidkv::v1::Choice& choice) const {
  choice.set_index(0);
  choice.set_finish_reason(to_proto(result_->finish_reason));
  choice.set_matched_stop(output_.matched_stop());
  set_usage(*result_, *message.mutable_usage());
  set_timings(result_->timings, *message.mutable_timings());
  if (report_ != ReportDetail::kNone) {
    set_report(result_->cache, request_->policy, report_, *message.mutable_cache());
  }
}

}  // namespace pkv
