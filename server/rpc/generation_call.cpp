#include "server/rpc/generation_call.h"

#include "server/rpc/conversion.h"
#include "server/rpc/errors.h"

namespace pkv {
namespace {

namespace pb = ::pyramidkv::v1;

constexpr absl::Duration kQueueRetryDelay = absl::Seconds(1);

}  // namespace

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
  const std::lock_guard lock(mutex_);
  error_ = status;
  advance();
}

grpc::Status GenerationCall::close(const absl::Status& status) {
  const grpc::Status final_status = to_grpc_status(status);
  final_code_ = status_code_name(final_status.error_code());
  state_.metrics().count_end(policy_row(valid_.request->policy.kind).name, final_code_);
  return final_status;
}

void GenerationCall::log_end() const {
  state_.log().debug("generation ended", {{"request_id", valid_.request->id},
                                          {"policy", std::string(policy_row(valid_.request->policy.kind).name)},
                                          {"prompt_tokens", std::to_string(valid_.request->prompt.size())},
                                          {"code", std::string(final_code_)}});
}

pb::GenerateStreamResponse GenerationCall::start_message() const {
  pb::GenerateStreamResponse message;
  pb::StreamStart& start = *message.mutable_start();
  start.set_request_id(valid_.request->id);
  start.set_model(served_.id);
  start.set_prompt_tokens(static_cast<uint32_t>(valid_.request->prompt.size()));
  *start.mutable_effective_policy() = to_proto(valid_.request->policy);
  start.set_seed(valid_.request->sampling.seed);
  return message;
}

void GenerationCall::set_ending(pb::Choice& choice) const {
  choice.set_index(0);
  choice.set_finish_reason(to_proto(result_->finish_reason));
  choice.set_matched_stop(output_.matched_stop());
}

absl::Status submit_error(const absl::Status& status) {
  ErrorDetail detail{.code = status.code(), .description = std::string(status.message())};
  switch (status.code()) {
    case absl::StatusCode::kResourceExhausted:
      detail.reason = kQueueFull;
      detail.retry_delay = kQueueRetryDelay;
      return make_error(detail);
    case absl::StatusCode::kUnavailable:
      detail.reason = kServerDraining;
      return make_error(detail);
    case absl::StatusCode::kFailedPrecondition:
      detail.reason = kCacheNeverFits;
      return make_error(detail);
    case absl::StatusCode::kInvalidArgument:
      return with_reason(status, kBadCachePolicy);
    default:
      return status;
  }
}

}  // namespace pkv
