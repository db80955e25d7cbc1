#include "server/rpc/generation_service.h"

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "kernels/status_macros.h"
#include "server/api/accept.h"
#include "server/api/access_log.h"
#include "server/api/errors.h"
#include "server/api/estimate_cache.h"
#include "server/api/gate.h"
#include "server/api/prompt_input.h"
#include "server/api/report_size.h"
#include "server/rpc/call_info.h"
#include "server/rpc/grpc_status.h"
#include "server/rpc/stream_call.h"
#include "server/rpc/unary_call.h"
#include "server/rpc/wire.h"

namespace pkv {
namespace {

namespace pb = ::pyramidkv::v1;

// Makes the request of a generation, on a preparation thread.
GenerationCall::Reader reader(const grpc::ByteBuffer& buffer, ServerState& state, std::optional<absl::Time> deadline) {
  return [buffer, &state, deadline](CallInfo& info) -> absl::StatusOr<AcceptedRequest> {
    pb::GenerateRequest message;
    PKV_RETURN_IF_ERROR(parse_message(buffer, message));
    return accept_request(message, state, deadline, info);
  };
}

// Of one that is answered in one message.
GenerationCall::Reader unary_reader(const grpc::ByteBuffer& buffer, ServerState& state,
                                    std::optional<absl::Time> deadline) {
  return [read = reader(buffer, state, deadline), &state](CallInfo& info) -> absl::StatusOr<AcceptedRequest> {
    PKV_ASSIGN_OR_RETURN(AcceptedRequest accepted, read(info));
    PKV_RETURN_IF_ERROR(check_logprob_size(accepted.valid.request(), *accepted.served, state.limits().max_reply_bytes));
    return accepted;
  };
}

GenerationCall::Reader comparison_reader(const grpc::ByteBuffer& buffer, ServerState& state,
                                         std::optional<absl::Time> deadline) {
  return [buffer, &state, deadline](CallInfo& info) -> absl::StatusOr<AcceptedRequest> {
    pb::CompareRequest message;
    PKV_RETURN_IF_ERROR(parse_message(buffer, message));
    return accept_comparison(message, state, deadline, info);
  };
}

// What is answered without the engine, yet may take its time: the reply is made on a preparation thread.
template <typename Response>
grpc::ServerUnaryReactor* answer_prepared(std::string_view method, const grpc::ByteBuffer& request,
                                          grpc::CallbackServerContext& context, grpc::ByteBuffer& response,
                                          ServerState& state, const std::shared_ptr<ReplyWatch>& watch,
                                          absl::Status (*make)(const grpc::ByteBuffer&, const ServerState&,
                                                               Response&)) {
  CallInfo info = describe_call(context, method);
  absl::Status admitted = state.authenticator().admit(info.credentials, KeyScope::kGenerate, info.key);
  info.preparing = std::make_shared<PreparationList::Entry>(
      state.preparing(), PreparationList::Row{.method = method, .peer = info.peer, .bytes = request.Length()});
  const std::string owner = owner_of(info.key.get());
  auto reactor = std::make_unique<WatchedReply>(watch, context);
  const auto finish = [reactor = reactor.get(), info, &context, &state](const absl::Status& status) {
    if (info.key != nullptr) info.key->release();  // before the caller hears of the end, and may call again
    add_retry_trailer(status, context);
    reactor->reply(to_grpc_status(status));  // gRPC's objects are gone from here on
    log_access(state.log(), info, {.status = status, .code = status_code_name(status.code())});
  };
  const auto task = [request, make, finish, preparing = info.preparing, &response, &state] {
    preparing->begin();
    finish(outcome_of([&] {
      Response message;
      const absl::Status status = make(request, state, message);
      if (status.ok()) response = serialize_message(message);
      return status;
    }));
  };
  if (admitted.ok()) {
    admitted = outcome_of([&] { return state.preparation().post(task, owner) ? absl::OkStatus() : queue_full(state); });
  }
  if (!admitted.ok()) finish(admitted);
  return reactor.release();  // deletes itself
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
  return check_reply_size(response.ByteSizeLong(), state.limits().max_reply_bytes,
                          message.has_chat() ? "chat" : "text");
}

absl::Status detokenize(const grpc::ByteBuffer& buffer, const ServerState& state, pb::DetokenizeResponse& response) {
  pb::DetokenizeRequest message;
  PKV_RETURN_IF_ERROR(parse_message(buffer, message));
  PKV_ASSIGN_OR_RETURN(const ServedModel* served, state.find_model(message.model()));
  const Tokenizer& tokenizer = *served->tokenizer;
  PKV_ASSIGN_OR_RETURN(std::vector<TokenId> ids,
                       read_token_ids(message.token_ids(), tokenizer.vocab_size(), "token_ids"));
  const uint64_t max_bytes = state.limits().max_reply_bytes;
  uint64_t bytes = 0;
  for (const TokenId id : ids) bytes += tokenizer.token_bytes(id).size();
  PKV_RETURN_IF_ERROR(check_reply_size(bytes, max_bytes, "token_ids"));  // before as much memory is taken
  absl::StatusOr<std::string> text = tokenizer.decode(ids);
  if (!text.ok()) return bad_input("token_ids", std::string(text.status().message()));
  response.set_text(*std::move(text));
  return check_reply_size(response.ByteSizeLong(), max_bytes, "token_ids");
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
  return start_unary_call(state_, watch_, describe_call(*context, "Generate"), *context, *response, request->Length(),
                          unary_reader(*request, state_, deadline_of(*context)));
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* GenerationService::GenerateStream(grpc::CallbackServerContext* context,
                                                                              const grpc::ByteBuffer* request) {
  return start_stream_call(state_, watch_, describe_call(*context, "GenerateStream"), *context, request->Length(),
                           reader(*request, state_, deadline_of(*context)));
}

grpc::ServerUnaryReactor* GenerationService::Tokenize(grpc::CallbackServerContext* context,
                                                      const grpc::ByteBuffer* request, grpc::ByteBuffer* response) {
  return answer_prepared("Tokenize", *request, *context, *response, state_, watch_, tokenize);
}

grpc::ServerUnaryReactor* GenerationService::Detokenize(grpc::CallbackServerContext* context,
                                                        const grpc::ByteBuffer* request, grpc::ByteBuffer* response) {
  return answer_prepared("Detokenize", *request, *context, *response, state_, watch_, detokenize);
}

grpc::ServerUnaryReactor* GenerationService::EstimateCache(grpc::CallbackServerContext* context,
                                                           const grpc::ByteBuffer* request,
                                                           grpc::ByteBuffer* response) {
  return answer_prepared("EstimateCache", *request, *context, *response, state_, watch_, estimate);
}

grpc::ServerUnaryReactor* GenerationService::Compare(grpc::CallbackServerContext* context,
                                                     const grpc::ByteBuffer* request, grpc::ByteBuffer* response) {
  return start_unary_call(state_, watch_, describe_call(*context, "Compare"), *context, *response, request->Length(),
                          comparison_reader(*request, state_, deadline_of(*context)));
}

}  // namespace pkv
