// Connects, calls, and unpacks the error details that the server sends beside a status.
#include "client/client.h"

#include <grpcpp/grpcpp.h>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "pyramidkv/v1/error_details.pb.h"

namespace pkv::client {
namespace {

constexpr absl::Duration kConnectTimeout = absl::Seconds(5);
constexpr int kMaxMessageBytes = 64 << 20;  // echoed log-probabilities of a long prompt are large

constexpr char kTypePrefix[] = "type.googleapis.com/google.rpc.";

}  // namespace

std::string Error::describe() const {
  std::string text = message.empty() ? absl::StrCat("gRPC status ", static_cast<int>(code)) : message;
  if (!reason.empty()) absl::StrAppend(&text, " [", reason, "]");
  for (const auto& [field, description] : fields) {
    const std::string line = absl::StrCat(field, ": ", description);
    if (message.find(line) == std::string::npos) absl::StrAppend(&text, "\n  ", line);
  }
  for (const auto& [key, value] : metadata) absl::StrAppend(&text, "\n  ", key, " = ", value);
  return text;
}

Client::Client(const std::string& target) : target_(target) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMaxMessageBytes);
  channel_ = grpc::CreateCustomChannel(target, grpc::InsecureChannelCredentials(), arguments);
  generation_ = v1::GenerationService::NewStub(channel_);
  models_ = v1::ModelService::NewStub(channel_);
  stats_ = v1::StatsService::NewStub(channel_);
}

// A refused connection is reported at once instead of being retried until the deadline.
bool Client::connect() {
  const absl::Time deadline = absl::Now() + kConnectTimeout;
  grpc_connectivity_state state = channel_->GetState(true);
  while (state != GRPC_CHANNEL_READY) {
    if (state == GRPC_CHANNEL_TRANSIENT_FAILURE || state == GRPC_CHANNEL_SHUTDOWN || absl::Now() >= deadline)
      return false;
    channel_->WaitForStateChange(state, absl::ToChronoTime(deadline));
    state = channel_->GetState(true);
  }
  return true;
}

Error Client::unreachable() const {
  return {.code = grpc::StatusCode::UNAVAILABLE, .message = absl::StrCat("no server at ", target_), .reachable = false};
}

Error Client::error_of(const grpc::Status& status) {
  Error error{.code = status.error_code(), .message = status.error_message()};
  v1::ErrorStatus details;
  if (!details.ParseFromString(status.error_details())) return error;
  for (const auto& any : details.details()) {
    v1::ErrorInfo info;
    v1::BadRequest bad_request;
    if (any.type_url() == absl::StrCat(kTypePrefix, "ErrorInfo") && info.ParseFromString(any.value())) {
      error.reason = info.reason();
      error.metadata = {info.metadata().begin(), info.metadata().end()};
    } else if (any.type_url() == absl::StrCat(kTypePrefix, "BadRequest") && bad_request.ParseFromString(any.value())) {
      for (const auto& violation : bad_request.field_violations()) {
        error.fields.emplace_back(violation.field(), violation.description());
      }
    }
  }
  return error;
}

template <typename Reply, typename Call>
Result<Reply> Client::call(Call&& invoke) {
  if (!connect()) return {.error = unreachable()};
  grpc::ClientContext context;
  Reply reply;
  const grpc::Status status = invoke(&context, &reply);
  if (!status.ok()) return {.error = error_of(status)};
  return {.value = std::move(reply)};
}

Result<v1::GenerateResponse> Client::generate(const v1::GenerateRequest& request) {
  return call<v1::GenerateResponse>(
      [&](grpc::ClientContext* context, auto* reply) { return generation_->Generate(context, request, reply); });
}

Result<v1::StreamEnd> Client::generate_stream(const v1::GenerateRequest& request,
                                              const std::function<bool(const v1::GenerateStreamResponse&)>& on_event) {
  if (!connect()) return {.error = unreachable()};
  grpc::ClientContext context;
  auto reader = generation_->GenerateStream(&context, request);
  std::optional<v1::StreamEnd> end;
  v1::GenerateStreamResponse event;
  while (reader->Read(&event)) {
    if (!on_event(event)) context.TryCancel();
    if (event.has_end()) end = event.end();
  }
  const grpc::Status status = reader->Finish();
  if (!status.ok()) return {.error = error_of(status)};
  if (!end) return {.error = {.message = "the stream closed without its end message: the answer is incomplete"}};
  return {.value = std::move(end)};
}

Result<v1::TokenizeResponse> Client::tokenize(const v1::TokenizeRequest& request) {
  return call<v1::TokenizeResponse>(
      [&](grpc::ClientContext* context, auto* reply) { return generation_->Tokenize(context, request, reply); });
}

Result<v1::DetokenizeResponse> Client::detokenize(const v1::DetokenizeRequest& request) {
  return call<v1::DetokenizeResponse>(
      [&](grpc::ClientContext* context, auto* reply) { return generation_->Detokenize(context, request, reply); });
}

Result<v1::EstimateCacheResponse> Client::estimate_cache(const v1::EstimateCacheRequest& request) {
  return call<v1::EstimateCacheResponse>(
      [&](grpc::ClientContext* context, auto* reply) { return generation_->EstimateCache(context, request, reply); });
}

Result<v1::CompareResponse> Client::compare(const v1::CompareRequest& request) {
  return call<v1::CompareResponse>(
      [&](grpc::ClientContext* context, auto* reply) { return generation_->Compare(context, request, reply); });
}

Result<v1::ListModelsResponse> Client::list_models() {
  return call<v1::ListModelsResponse>(
      [&](grpc::ClientContext* context, auto* reply) { return models_->ListModels(context, {}, reply); });
}

Result<v1::ListCachePoliciesResponse> Client::list_cache_policies() {
  return call<v1::ListCachePoliciesResponse>(
      [&](grpc::ClientContext* context, auto* reply) { return models_->ListCachePolicies(context, {}, reply); });
}

Result<v1::GetStatsResponse> Client::get_stats(bool include_requests) {
  v1::GetStatsRequest request;
  request.set_include_requests(include_requests);
  return call<v1::GetStatsResponse>(
      [&](grpc::ClientContext* context, auto* reply) { return stats_->GetStats(context, request, reply); });
}

std::optional<Error> Client::watch_stats(const v1::WatchStatsRequest& request,
                                         const std::function<bool(const v1::WatchStatsResponse&)>& on_message) {
  if (!connect()) return unreachable();
  grpc::ClientContext context;
  const auto reader = stats_->WatchStats(&context, request);
  bool wanted = true;
  for (v1::WatchStatsResponse message; wanted && reader->Read(&message);) wanted = on_message(message);
  if (!wanted) context.TryCancel();
  const grpc::Status status = reader->Finish();
  if (!wanted) return std::nullopt;
  if (status.ok()) return Error{.message = "the server closed the stream"};
  return error_of(status);
}

}  // namespace pkv::client
