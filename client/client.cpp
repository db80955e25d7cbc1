// Connects, calls, and unpacks the error details that the server sends beside a status.
#include "client/client.h"

#include <grpcpp/grpcpp.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "client/connection.h"
#include "client/error_text.h"
#include "pyramidkv/v1/error_details.pb.h"

namespace pkv::client {
namespace {

constexpr absl::Duration kConnectTimeout = absl::Seconds(5);
constexpr int kMaxMessageBytes = 64 << 20;  // echoed log-probabilities of a long prompt are large

constexpr char kTypePrefix[] = "type.googleapis.com/google.rpc.";

void apply_deadline(const std::optional<double>& seconds, grpc::ClientContext& context) {
  if (seconds) context.set_deadline(absl::ToChronoTime(absl::Now() + absl::Seconds(*seconds)));
}

// A connection that breaks and a deadline that passes on this side come without the reason that our server gives beside
// their codes.
void say_when(const std::string& when, Error& error) {
  if (!error.reason.empty()) return;
  if (error.code == grpc::StatusCode::DEADLINE_EXCEEDED) error.message = absl::StrCat("the deadline passed ", when);
  if (error.code != grpc::StatusCode::UNAVAILABLE) return;
  error.reachable = false;
  error.message = absl::StrCat("the server closed the connection ", when, " (", error.message, ")");
}

std::string after(uint64_t tokens) {
  if (tokens == 0) return "before the first token";
  return absl::StrCat("after ", tokens, tokens == 1 ? " token" : " tokens");
}

}  // namespace

std::string Error::describe() const { return error_text(*this, {}); }

Client::Client(const std::string& target, const Access& access) : target_(target), access_(access) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMaxMessageBytes);
  channel_ = open_channel(target, access, arguments);
  generation_ = v1::GenerationService::NewStub(channel_);
  models_ = v1::ModelService::NewStub(channel_);
  stats_ = v1::StatsService::NewStub(channel_);
}

// A refused connection is reported at once instead of being retried until the deadline.
bool Client::connect() {
  if (!target_problem(target_).empty()) return false;
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
  Error error{.code = grpc::StatusCode::UNAVAILABLE, .reachable = false};
  const std::string wrong = target_problem(target_);
  error.bad_target = !wrong.empty();
  if (error.bad_target) {
    error.message = absl::StrCat("--server: ", wrong);
    return error;
  }
  const ConnectionProblem problem = connection_problem(target_, access_.tls);
  error.answered = problem.answered;
  error.message = access_.tls ? absl::StrCat("no server at ", target_, " over TLS: ", handshake_problem())
                              : absl::StrCat("no server at ", target_, ": ", problem.text);
  return error;
}

// gRPC's own words, which say what is wrong with a certificate.
std::string Client::handshake_problem() const {
  grpc::ClientContext context;
  apply_deadline(absl::ToDoubleSeconds(kConnectTimeout), context);
  v1::ListModelsResponse reply;
  const grpc::Status status = models_->ListModels(&context, {}, &reply);
  if (status.ok()) return "it did not take the connection in time";
  const bool unknown = absl::StrContains(status.error_message(), "certificate verify failed");
  return absl::StrCat(status.error_message(),
                      unknown ? "\nTry --ca FILE with the authority of the server's certificate" : "");
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
  apply_deadline(deadline_seconds_, context);
  Reply reply;
  const grpc::Status status = invoke(&context, &reply);
  if (status.ok()) return {.value = std::move(reply)};
  Error error = error_of(status);
  say_when("before the server answered", error);
  return {.error = std::move(error)};
}

Result<v1::GenerateResponse> Client::generate(const v1::GenerateRequest& request) {
  return call<v1::GenerateResponse>(
      [&](grpc::ClientContext* context, auto* reply) { return generation_->Generate(context, request, reply); });
}

Result<v1::StreamEnd> Client::generate_stream(const v1::GenerateRequest& request,
                                              const std::function<bool(const v1::GenerateStreamResponse&)>& on_event,
                                              std::stop_token stop) {
  if (!connect()) return {.error = unreachable()};
  grpc::ClientContext context;
  apply_deadline(deadline_seconds_, context);
  auto reader = generation_->GenerateStream(&context, request);
  const std::stop_callback cancel(stop, [&context] { context.TryCancel(); });
  std::optional<v1::StreamEnd> end;
  uint64_t tokens = 0;
  v1::GenerateStreamResponse event;
  while (reader->Read(&event)) {
    tokens += static_cast<uint64_t>(event.delta().token_ids_size());
    if (!on_event(event)) context.TryCancel();
    if (event.has_end()) end = event.end();
  }
  const grpc::Status status = reader->Finish();
  if (!status.ok()) {
    Error error = error_of(status);
    say_when(after(tokens), error);
    return {.error = std::move(error)};
  }
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
  if (status.ok()) return Error{.code = grpc::StatusCode::UNAVAILABLE, .message = "the server closed the stream"};
  return error_of(status);
}

}  // namespace pkv::client
