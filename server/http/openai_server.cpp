#include "server/http/openai_server.h"

#include <charconv>
#include <optional>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "server/api/access_log.h"
#include "server/api/errors.h"
#include "server/http/json_text.h"
#include "server/http/openai_call.h"
#include "server/http/openai_error.h"

namespace pkv {
namespace {

constexpr std::string_view kModels = "/v1/models";
constexpr std::string_view kCompletions = "/v1/completions";
constexpr std::string_view kChatCompletions = "/v1/chat/completions";
constexpr char kPaths[] =
    "there are POST /v1/completions, POST /v1/chat/completions, GET /v1/models, /health, /healthz and /readyz";
// Bodies that are being read, in those of the largest size.
constexpr uint64_t kArrivingBodies = 4;

bool is_generation(const std::string& path) { return path == kCompletions || path == kChatCompletions; }

Json model_json(const ServedModel& served, absl::Time started) {
  return {{"id", served.id},
          {"object", "model"},
          {"created", absl::ToUnixSeconds(started)},
          {"owned_by", "pyramidkv"},
          {"max_model_len", served.shape.max_positions}};
}

// As the part of a path says it; none where a % is not followed by two digits.
std::optional<std::string> percent_decoded(std::string_view part) {
  std::string text;
  for (size_t i = 0; i < part.size(); ++i) {
    if (part[i] != '%') {
      text += part[i];
      continue;
    }
    uint8_t byte = 0;
    const std::string_view digits = part.substr(i + 1, 2);
    const char* const end = digits.data() + digits.size();
    if (digits.size() < 2 || std::from_chars(digits.data(), end, byte, 16).ptr != end) return std::nullopt;
    text += static_cast<char>(byte);
    i += 2;
  }
  return text;
}

HttpResponse json_response(const Json& json) { return {.content_type = "application/json", .body = json_text(json)}; }

// Without one of the server's keys no body is taken in. Its scope and its limit are looked at when it is there.
bool wants_body(const ServerState& state, const HttpRequest& head) {
  std::shared_ptr<KeyUse> key;
  return head.method == "POST" && is_generation(head.path) &&
         state.authenticator().admit(read_authorization(head.authorization), KeyScope::kAny, key).ok();
}

// Its limit by the key of the configuration.
HttpResponse refusal_error(const HttpRefusal& refusal) {
  if (refusal.option.empty()) return openai_error(refusal.status, refusal.code, refusal.remedy);
  const bool bodies = refusal.option == "max_arriving_bytes";  // follows from that of one body
  const std::string key = bodies ? "max_body_bytes" : std::string(refusal.option);
  return openai_error(refusal.status, refusal.code, absl::StrCat(refusal.remedy, " (http.", key, ")"));
}

HttpResponse wrong_method(const std::string& path, const char* allowed) {
  HttpResponse response = openai_error(405, "METHOD_NOT_ALLOWED", absl::StrCat(path, " takes ", allowed));
  response.headers = absl::StrCat("Allow: ", allowed, "\r\n");
  return response;
}

}  // namespace

absl::StatusOr<std::unique_ptr<OpenAiServer>> OpenAiServer::start(const HttpConfig& config,
                                                                  std::shared_ptr<const TlsFiles> tls,
                                                                  ServerState& state, Probes probes) {
  std::unique_ptr<OpenAiServer> server(new OpenAiServer(state, std::move(probes)));
  absl::StatusOr<std::unique_ptr<HttpServer>> http =
      HttpServer::start({.listen = config.listen,
                         .max_connections = static_cast<size_t>(config.max_connections),
                         .max_header_bytes = static_cast<uint32_t>(config.max_header_bytes),
                         .max_body_bytes = config.max_body_bytes,
                         .max_arriving_bytes = kArrivingBodies * config.max_body_bytes,
                         .idle_seconds = config.idle_seconds,
                         .tls = config.tls ? std::move(tls) : nullptr,
                         .keep_alive = true,
                         .refusal = refusal_error,
                         .wants_body = [&state](const HttpRequest& head) { return wants_body(state, head); }},
                        [self = server.get()](HttpRequest request, std::shared_ptr<HttpExchange> exchange) {
                          self->answer(std::move(request), std::move(exchange));
                        });
  if (!http.ok()) {
    return absl::UnavailableError(absl::StrCat("http.listen: cannot listen on ", config.listen, ": ",
                                               std::string(http.status().message()),
                                               "; choose another with --set http.listen=HOST:PORT"));
  }
  server->http_ = *std::move(http);
  return server;
}

HttpResponse OpenAiServer::list_models() const {
  const absl::StatusOr<const ServedModel*> served = state_.find_model("");
  if (!served.ok()) return openai_error(served.status());
  return json_response({{"object", "list"}, {"data", Json::array({model_json(**served, state_.started())})}});
}

HttpResponse OpenAiServer::describe_model(std::string_view part) const {
  const std::optional<std::string> id = percent_decoded(part);
  if (!id) return openai_error(400, kBadInput, "the path has a % without two hexadecimal digits after it");
  const absl::StatusOr<const ServedModel*> served = state_.find_model(*id);
  if (!served.ok()) return openai_error(served.status());
  return json_response(model_json(**served, state_.started()));
}

void OpenAiServer::answer(HttpRequest request, std::shared_ptr<HttpExchange> exchange) {
  const auto respond = [&exchange](HttpResponse response) { exchange->respond(std::move(response), [](bool) {}); };
  const std::string& path = request.path;
  if (is_generation(path)) {
    if (request.method != "POST") return respond(wrong_method(path, "POST"));
    const auto endpoint = path == kCompletions ? OpenAiEndpoint::kCompletions : OpenAiEndpoint::kChat;
    return start_openai_call(state_, endpoint, std::move(request), std::move(exchange));
  }
  std::optional<HttpResponse> probe = probes_.answer(path);
  const bool models = path.starts_with(kModels) && (path.size() == kModels.size() || path[kModels.size()] == '/');
  if (!probe && !models) return respond(openai_error(404, kNotFound, kPaths));
  if (request.method != "GET") return respond(wrong_method(path, "GET, HEAD"));
  if (probe) return respond(*std::move(probe));
  CallInfo info{.method = "GET /v1/models",
                .peer = request.peer,
                .arrived = absl::Now(),
                .trace = parse_traceparent(request.traceparent),
                .credentials = read_authorization(request.authorization)};
  const absl::Status admitted = state_.authenticator().admit(info.credentials, KeyScope::kAny, info.key);
  if (!admitted.ok()) {
    log_access(state_.log(), info, {.status = admitted, .code = status_code_name(admitted.code())});
    return respond(openai_error(admitted));
  }
  respond(path.size() <= kModels.size() + 1 ? list_models() : describe_model(path.substr(kModels.size() + 1)));
}

}  // namespace pkv
