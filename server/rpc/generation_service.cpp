#include "server/rpc/generation_service.h"

#include <functional>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

#include "kernels/status_macros.h"
#include "server/api/accept.h"
#include "server/api/errors.h"
#include "server/api/estimate_cache.h"
#include "server/api/prompt_input.h"
#include "server/api/report_size.h"
#include "server/rpc/call_info.h"
#include "server/rpc/prepared_call.h"
#include "server/rpc/stream_call.h"
#include "server/rpc/unary_call.h"
#include "server/rpc/wire.h"

namespace pkv {
namespace {

namespace pb = ::pyramidkv::v1;

// Bytes of a message that is answered in less time than changing threads for it takes.
constexpr size_t kShortMessage = 512;

// Makes the request of a generation, on a preparation thread.
GenerationCall::Reader reader(const grpc::ByteBuffer& buffer, ServerState& state) {
  return [buffer, &state](CallInfo& info, const std::stop_token& stop) -> absl::StatusOr<AcceptedRequest> {
    pb::GenerateRequest message;
    PKV_RETURN_IF_ERROR(parse_message(buffer, message));
    return accept_request(message, state, stop, info);
  };
}

// Of one that is answered in one message.
GenerationCall::Reader unary_reader(const grpc::ByteBuffer& buffer, ServerState& state) {
  return [read = reader(buffer, state), &state](CallInfo& info,
                                                const std::stop_token& stop) -> absl::StatusOr<AcceptedRequest> {
    PKV_ASSIGN_OR_RETURN(AcceptedRequest accepted, read(info, stop));
    PKV_RETURN_IF_ERROR(
        check_logprob_size(accepted.valid.request(), *accepted.served, state.limits()->max_reply_bytes));
    return accepted;
  };
}

GenerationCall::Reader comparison_reader(const grpc::ByteBuffer& buffer, ServerState& state) {
  return [buffer, &state](CallInfo& info, const std::stop_token& stop) -> absl::StatusOr<AcceptedRequest> {
    pb::CompareRequest message;
    PKV_RETURN_IF_ERROR(parse_message(buffer, message));
    return accept_comparison(message, state, stop, info);
  };
}

absl::Status tokenize(const grpc::ByteBuffer& buffer, const ServerState& state, const std::stop_token& stop,
                      pb::TokenizeResponse& response) {
  pb::TokenizeRequest message;
  PKV_RETURN_IF_ERROR(parse_message(buffer, message));
  PKV_ASSIGN_OR_RETURN(const ServedModel* served, state.find_model(message.model()));
  const bool chat = message.has_chat();
  PKV_RETURN_IF_ERROR(check_text_size(chat ? message.chat().ByteSizeLong() : message.text().size(), *state.limits(),
                                      chat ? "chat" : "text"));
  std::vector<TokenId> ids;
  if (chat) {
    PKV_ASSIGN_OR_RETURN(RenderedChat rendered, render_chat(message.chat(), *served->chat_template, stop));
    ids = std::move(rendered.token_ids);
    response.set_rendered_text(std::move(rendered.text));
  } else if (message.input_case() == pb::TokenizeRequest::kText) {
    const bool special = !message.has_add_special_tokens() || message.add_special_tokens();
    PKV_ASSIGN_OR_RETURN(ids, encode_text(message.text(), *served->tokenizer, special, "text", stop));
  } else {
    return bad_input("text", "one of text and chat has to be given");
  }
  response.mutable_token_ids()->Add(ids.begin(), ids.end());
  response.set_max_model_len(static_cast<uint32_t>(served->shape.max_positions));
  return check_reply_size(response.ByteSizeLong(), state.limits()->max_reply_bytes, chat ? "chat" : "text");
}

absl::Status detokenize(const grpc::ByteBuffer& buffer, const ServerState& state, const std::stop_token& stop,
                        pb::DetokenizeResponse& response) {
  pb::DetokenizeRequest message;
  PKV_RETURN_IF_ERROR(parse_message(buffer, message));
  PKV_ASSIGN_OR_RETURN(const ServedModel* served, state.find_model(message.model()));
  const Tokenizer& tokenizer = *served->tokenizer;
  PKV_ASSIGN_OR_RETURN(std::vector<TokenId> ids,
                       read_token_ids(message.token_ids(), tokenizer.vocab_size(), "token_ids"));
  const uint64_t max_bytes = state.limits()->max_reply_bytes;
  uint64_t bytes = 0;
  for (const TokenId id : ids) bytes += tokenizer.token_bytes(id).size();
  PKV_RETURN_IF_ERROR(check_reply_size(bytes, max_bytes, "token_ids"));  // before as much memory is taken
  absl::StatusOr<std::string> text = tokenizer.decode(ids, stop);
  if (absl::IsCancelled(text.status())) return text.status();
  if (!text.ok()) return bad_input("token_ids", std::string(text.status().message()));
  response.set_text(*std::move(text));
  return check_reply_size(response.ByteSizeLong(), max_bytes, "token_ids");
}

// Of lengths alone, without a text: over before anybody gives it up.
absl::Status estimate(const grpc::ByteBuffer& buffer, const ServerState& state, const std::stop_token&,
                      pb::EstimateCacheResponse& response) {
  pb::EstimateCacheRequest message;
  PKV_RETURN_IF_ERROR(parse_message(buffer, message));
  PKV_ASSIGN_OR_RETURN(const ServedModel* served, state.find_model(message.model()));
  return estimate_cache(message, *served, *state.policies(), response);
}

template <typename Response>
ReplyMaker maker(const grpc::ByteBuffer& request, const ServerState& state,
                 absl::Status (*make)(const grpc::ByteBuffer&, const ServerState&, const std::stop_token&, Response&)) {
  return [request, &state, make](const std::stop_token& stop) -> absl::StatusOr<grpc::ByteBuffer> {
    Response message;
    PKV_RETURN_IF_ERROR(make(request, state, stop, message));
    return serialize_message(message);
  };
}

// Whether tokenising takes less time than changing threads for it. Of a chat nobody knows what its template does.
bool is_short_text(const grpc::ByteBuffer& request) {
  pb::TokenizeRequest message;
  return request.Length() <= kShortMessage && parse_message(request, message).ok() && message.has_text();
}

}  // namespace

grpc::ServerUnaryReactor* GenerationService::Generate(grpc::CallbackServerContext* context,
                                                      const grpc::ByteBuffer* request, grpc::ByteBuffer* response) {
  return start_unary_call(state_, watch_, describe_call(*context, "Generate"), *context, *response, request->Length(),
                          unary_reader(*request, state_));
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* GenerationService::GenerateStream(grpc::CallbackServerContext* context,
                                                                              const grpc::ByteBuffer* request) {
  return start_stream_call(state_, watch_, describe_call(*context, "GenerateStream"), *context, request->Length(),
                           reader(*request, state_));
}

grpc::ServerUnaryReactor* GenerationService::Tokenize(grpc::CallbackServerContext* context,
                                                      const grpc::ByteBuffer* request, grpc::ByteBuffer* response) {
  return start_prepared_call(state_, watch_, describe_call(*context, "Tokenize"), *context, *response,
                             request->Length(), maker(*request, state_, tokenize), is_short_text(*request));
}

grpc::ServerUnaryReactor* GenerationService::Detokenize(grpc::CallbackServerContext* context,
                                                        const grpc::ByteBuffer* request, grpc::ByteBuffer* response) {
  return start_prepared_call(state_, watch_, describe_call(*context, "Detokenize"), *context, *response,
                             request->Length(), maker(*request, state_, detokenize),
                             request->Length() <= kShortMessage);
}

grpc::ServerUnaryReactor* GenerationService::EstimateCache(grpc::CallbackServerContext* context,
                                                           const grpc::ByteBuffer* request,
                                                           grpc::ByteBuffer* response) {
  return start_prepared_call(state_, watch_, describe_call(*context, "EstimateCache"), *context, *response,
                             request->Length(), maker(*request, state_, estimate));
}

grpc::ServerUnaryReactor* GenerationService::Compare(grpc::CallbackServerContext* context,
                                                     const grpc::ByteBuffer* request, grpc::ByteBuffer* response) {
  return start_unary_call(state_, watch_, describe_call(*context, "Compare"), *context, *response, request->Length(),
                          comparison_reader(*request, state_));
}

}  // namespace pkv
