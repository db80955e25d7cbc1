#include "server/rpc/generation_call.h"

#include <string>

#include "absl/time/clock.h"
#include "server/api/engine_errors.h"
#include "server/api/errors.h"
#include "server/engine/cache_report.h"
#include "server/engine/engine.h"
#include "server/policy/registry.h"
#include "server/rpc/grpc_status.h"

namespace pkv {
namespace {

namespace pb = ::pyramidkv::v1;

// Beside the status: when to come back.
void add_retry_trailer(const absl::Status& status, grpc::CallbackServerContext& context) {
  const absl::Duration delay = error_retry_delay(status);
  if (delay > absl::ZeroDuration()) {
    context.AddTrailingMetadata("grpc-retry-pushback-ms", std::to_string(absl::ToInt64Milliseconds(delay)));
  }
}

}  // namespace

void GenerationCall::submit(const std::shared_ptr<GenerationCall>& call, grpc::CallbackServerContext& context) {
  const absl::Status submitted = call->served_.engine->submit(std::move(call->prepared_), call);
  if (submitted.ok()) return;
  const absl::Status error = submit_error(submitted, call->served_.engine->state());
  add_retry_trailer(error, context);
  call->refuse(error);
}

void GenerationCall::cancel() { served_.engine->cancel(this); }

void GenerationCall::refuse(const absl::Status& error) {
  state_.metrics().count_rejection(error_reason(error));
  const std::lock_guard lock(mutex_);
  error_ = error;
  advance();
}

void GenerationCall::on_start() {
  const std::lock_guard lock(mutex_);
  started_ = true;
  advance();
}

void GenerationCall::on_progress(double prefill_done) {
  const std::lock_guard lock(mutex_);
  progress_ = prefill_done;
  advance();
}

void GenerationCall::on_prompt_logprobs(std::span<const TokenLogprob> tokens) {
  const std::lock_guard lock(mutex_);
  output_.add_prompt_logprobs(tokens);
}

bool GenerationCall::on_token(const TokenLogprob& token) {
  const std::lock_guard lock(mutex_);
  if (generated_++ == 0) first_token_ = absl::Now();
  const bool goes_on = output_.add_token(token);
  advance();
  return goes_on;
}

void GenerationCall::on_end(const RequestResult& result) {
  const std::lock_guard lock(mutex_);
  output_.finish(result);
  result_ = result;
  advance();
}

void GenerationCall::on_error(const absl::Status& status) {
  const absl::Status error = running_error(status, served_.engine->state());
  if (error_reason(error) == kRecallNotReached) return refuse(error);
  const std::lock_guard lock(mutex_);
  error_ = error;
  advance();
}

grpc::Status GenerationCall::close(const absl::Status& status) {
  final_code_ = status_code_name(status.code());
  if (info_.key != nullptr) info_.key->release();
  state_.metrics().count_end(policy_row(request_->policy.kind).name, final_code_);
  return to_grpc_status(status);
}

void GenerationCall::log_end() {
  CallOutcome outcome{.policy = policy_row(request_->policy.kind).name, .prompt_tokens = request_->prompt.size()};
  {
    // The engine thread may still be in the call that ended it.
    const std::lock_guard lock(mutex_);
    outcome.status = error_;
    outcome.code = final_code_;
    outcome.generated_tokens = generated_;
    outcome.first_token = first_token_;
    if (result_) {
      outcome.kept_share = kept_share(result_->cache);
      outcome.recall = mean_recall(result_->cache);
    }
  }
  log_access(state_.log(), info_, outcome);
}

pb::GenerateStreamResponse GenerationCall::start_message() const {
  pb::GenerateStreamResponse message;
  pb::StreamStart& start = *message.mutable_start();
  start.set_request_id(request_->id);
  start.set_model(served_.id);
  start.set_prompt_tokens(static_cast<uint32_t>(request_->prompt.size()));
  *start.mutable_effective_policy() = to_proto(request_->policy);
  start.set_seed(request_->sampling.seed);
  return message;
}

}  // namespace pkv
