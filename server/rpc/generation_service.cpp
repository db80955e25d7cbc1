#include "server/rpc/generation_service.h"

#include <string>
#include <utility>
#include <vector>

#include "kernels/status_macros.h"
#include "server/api/access_log.h"
#include "server/api/comparison_rules.h"
#include "server/api/errors.h"
#include "server/api/estimate_cache.h"
#include "server/api/validation.h"
#include "server/rpc/call_info.h"
#include "server/rpc/grpc_status.h"
#include "server/rpc/refused_stream.h"
#include "server/rpc/stream_call.h"
#include "server/rpc/unary_call.h"
#include "server/rpc/wire.h"

namespace pkv {
namespace {

namespace pb = ::pyramidkv::v1;

struct AcceptedRequest {
  const ServedModel* served = nullptr;
  ValidRequest valid;
};

// Ids that are too long are refused, and not repeated in the log.
void note_id(const pb::GenerateRequest& message, CallInfo& info) {
  if (message.request_id().size() <= kMaxRequestIdBytes) info.request_id = message.request_id();
}

// What is asked first of every call: whether the caller has a key for it, and one more request.
absl::Status admit(ServerState& state, CallInfo& info) {
  return state.authenticator().admit(info.credentials, KeyScope::kGenerate, info.key);
}

absl::StatusOr<AcceptedRequest> accept(const grpc::ByteBuffer& buffer, ServerState& state,
                                       const grpc::CallbackServerContext& context, CallInfo& info) {
  PKV_RETURN_IF_ERROR(admit(state, info));
  pb::GenerateRequest message;
  PKV_RETURN_IF_ERROR(parse_message(buffer, message));
  note_id(message, info);
  PKV_ASSIGN_OR_RETURN(const ServedModel* served, state.find_model(message.model()));
  PKV_ASSIGN_OR_RETURN(ValidRequest valid, validate_request(message, *served, state, deadline_of(context)));
  info.request_id = valid.request().id;  // made up where the caller names none
  return AcceptedRequest{.served = served, .valid = std::move(valid)};
}

absl::StatusOr<AcceptedRequest> accept_comparison(const grpc::ByteBuffer& buffer, ServerState& state,
                                                  const grpc::CallbackServerContext& context, CallInfo& info) {
  PKV_RETURN_IF_ERROR(admit(state, info));
  pb::CompareRequest message;
  PKV_RETURN_IF_ERROR(parse_message(buffer, message));
  note_id(message.request(), info);
  absl::StatusOr<const ServedModel*> served = state.find_model(message.request().model());
  if (!served.ok()) return with_field_moved(served.status(), "model", "request.model");
  PKV_ASSIGN_OR_RETURN(ValidRequest valid, validate_comparison(message, **served, state, deadline_of(context)));
  info.request_id = valid.request().id;
  return AcceptedRequest{.served = *served, .valid = std::move(valid)};
}

// Before the caller hears of the call's end, and may call again.
void give_back_place(const CallInfo& info) {
  if (info.key != nullptr) info.key->release();
}

// A generation that was refused before its policy was known to be one, or that nobody waits for any more.
grpc::Status refuse(const absl::Status& status, ServerState& state, const CallInfo& info) {
  const std::string_view code = status_code_name(status.code());
  if (!absl::IsCancelled(status)) state.metrics().count_rejection(error_reason(status));
  state.metrics().count_end(kNoPolicy, code);
  log_access(state.log(), info, {.status = status, .code = code, .policy = kNoPolicy});
  give_back_place(info);
  return to_grpc_status(status);
}

// The call of a request that may be submitted, or the end of one that may not.
grpc::ServerUnaryReactor* answer(absl::StatusOr<AcceptedRequest> accepted, ServerState& state, CallInfo info,
                                 grpc::CallbackServerContext& context, grpc::ByteBuffer& response) {
  if (accepted.ok()) {
    return start_unary_call(*accepted->served, state, std::move(accepted->valid), std::move(info), context, response);
  }
  grpc::ServerUnaryReactor* reactor = context.DefaultReactor();
  reactor->Finish(refuse(accepted.status(), state, info));
  return reactor;
}

grpc::ServerUnaryReactor* finish(grpc::CallbackServerContext& context, const absl::Status& status,
                                 const ServerState& state, const CallInfo& info) {
  give_back_place(info);
  grpc::ServerUnaryReactor* reactor = context.DefaultReactor();
  reactor->Finish(to_grpc_status(status));
  log_access(state.log(), info, {.status = status, .code = status_code_name(status.code())});
  return reactor;
}

absl::Status tokenize(const grpc::ByteBuffer& buffer, const ServerState& state, pb::TokenizeResponse& response) {
  pb::TokenizeRequest message;
  PKV_RETURN_IF_ERROR(parse_message(buffer, message));
  PKV_ASSIGN_OR_RETURN(const ServedModel* served, state.find_model(message.model()));
  std::vector<TokenId> ids;
  if (message.has_chat()) {
    PKV_ASSIGN_OR_RETURN(RenderedChat chat, render_chat(message.chat(), *served->chat_template));
    ids = std::move(chat.token_ids);
    response.set_rendered_text(std::move(chat.text));
  } else if (message.input_case() == pb::TokenizeRequest::kText) {
    const bool special = !message.has_add_special_tokens() || message.add_special_tokens();
    PKV_ASSIGN_OR_RETURN(ids, encode_text(message.text(), *served->tokenizer, special, "text"));
  } else {
    return bad_input("text", "one of text and chat has to be given");
  }
  response.mutable_token_ids()->Add(ids.begin(), ids.end());
  response.set_max_model_len(static_cast<uint32_t>(served->shape.max_positions));
  return absl::OkStatus();
}

absl::Status detokenize(const grpc::ByteBuffer& buffer, const ServerState& state, pb::DetokenizeResponse& response) {
  pb::DetokenizeRequest message;
  PKV_RETURN_IF_ERROR(parse_message(buffer, message));
  PKV_ASSIGN_OR_RETURN(const ServedModel* served, state.find_model(message.model()));
  const Tokenizer& tokenizer = *served->tokenizer;
  PKV_ASSIGN_OR_RETURN(std::vector<TokenId> ids,
                       read_token_ids(message.token_ids(), tokenizer.vocab_size(), "token_ids"));
  absl::StatusOr<std::string> text = tokenizer.decode(ids);
  if (!text.ok()) return bad_input("token_ids", std::string(text.status().message()));
  response.set_text(*std::move(text));
  return absl::OkStatus();
}

absl::Status estimate(const grpc::ByteBuffer& buffer, const ServerState& state, pb::EstimateCacheResponse& response) {
  pb::EstimateCacheRequest message;
  PKV_RETURN_IF_ERROR(parse_message(buffer, message));
  PKV_ASSIGN_OR_RETURN(const ServedModel* served, state.find_model(message.model()));
  return estimate_cache(message, *served, *state.policies(), response);
}

}  // namespace

grpc::ServerUnaryReactor* GenerationService::Generate(grpc::CallbackServerContext* context,
                                                      const grpc::ByteBuffer* request, grpc::ByteBuffer* response) {
  CallInfo info = describe_call(*context, "Generate");
  absl::StatusOr<AcceptedRequest> accepted = accept(*request, state_, *context, info);
  return answer(std::move(accepted), state_, std::move(info), *context, *response);
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* GenerationService::GenerateStream(grpc::CallbackServerContext* context,
                                                                              const grpc::ByteBuffer* request) {
  CallInfo info = describe_call(*context, "GenerateStream");
  absl::StatusOr<AcceptedRequest> accepted = accept(*request, state_, *context, info);
  if (!accepted.ok()) return refuse_stream(refuse(accepted.status(), state_, info));
  return start_stream_call(*accepted->served, state_, std::move(accepted->valid), std::move(info), *context);
}

grpc::ServerUnaryReactor* GenerationService::Tokenize(grpc::CallbackServerContext* context,
                                                      const grpc::ByteBuffer* request, grpc::ByteBuffer* response) {
  CallInfo info = describe_call(*context, "Tokenize");
  pb::TokenizeResponse message;
  absl::Status status = admit(state_, info);
  if (status.ok()) status = tokenize(*request, state_, message);
  if (status.ok()) *response = serialize_message(message);
  return finish(*context, status, state_, info);
}

grpc::ServerUnaryReactor* GenerationService::Detokenize(grpc::CallbackServerContext* context,
                                                        const grpc::ByteBuffer* request, grpc::ByteBuffer* response) {
  CallInfo info = describe_call(*context, "Detokenize");
  pb::DetokenizeResponse message;
  absl::Status status = admit(state_, info);
  if (status.ok()) status = detokenize(*request, state_, message);
  if (status.ok()) *response = serialize_message(message);
  return finish(*context, status, state_, info);
}

grpc::ServerUnaryReactor* GenerationService::EstimateCache(grpc::CallbackServerContext* context,
                                                           const grpc::ByteBuffer* request,
                                                           grpc::ByteBuffer* response) {
  CallInfo info = describe_call(*context, "EstimateCache");
  pb::EstimateCacheResponse message;
  absl::Status status = admit(state_, info);
  if (status.ok()) status = estimate(*request, state_, message);
  if (status.ok()) *response = serialize_message(message);
  return finish(*context, status, state_, info);
}

grpc::ServerUnaryReactor* GenerationService::Compare(grpc::CallbackServerContext* context,
                                                     const grpc::ByteBuffer* request, grpc::ByteBuffer* response) {
  CallInfo info = describe_call(*context, "Compare");
  absl::StatusOr<AcceptedRequest> accepted = accept_comparison(*request, state_, *context, info);
  return answer(std::move(accepted), state_, std::move(info), *context, *response);
}

}  // namespace pkv
