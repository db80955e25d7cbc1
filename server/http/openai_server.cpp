#include "server/http/openai_server.h"

#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/api/errors.h"
#include "server/http/json_text.h"
#include "server/http/openai_call.h"
#include "server/http/openai_error.h"

namespace pkv {
namespace {

constexpr std::string_view kModels = "/v1/models";
constexpr char kPaths[] =
    "there are POST /v1/completions, POST /v1/chat/completions, GET /v1/models, /healthz and /readyz";
// Bodies that are being read, in those of the largest size.
constexpr uint64_t kArrivingBodies = 4;

Json model_json(const ServedModel& served, absl::Time started) {
  return {{"id", served.id},
          {"object", "model"},
          {"created", absl::ToUnixSeconds(started)},
          {"owned_by", "pyramidkv"},
          {"max_model_len", served.shape.max_positions}};
}

HttpResponse json_response(const Json& json) { return {.content_type = "application/json", .body = json_text(json)}; }

HttpResponse wrong_method(const std::string& path, const char* allowed) {
  HttpResponse response = openai_error(405, absl::StrCat(path, " takes ", allowed));
  response.headers = absl::StrCat("Allow: ", allowed, "\r\n");
  return response;
}

}  // namespace

absl::StatusOr<std::unique_ptr<OpenAiServer>> OpenAiServer::start(const HttpConfig& config, const TlsConfig& tls,
                                                                  ServerState& state, Probes probes) {
  std::unique_ptr<OpenAiServer> server(new OpenAiServer(state, std::move(probes)));
  absl::StatusOr<std::unique_ptr<HttpServer>> http =
      HttpServer::start({.listen = config.listen,
                         .max_connections = static_cast<size_t>(config.max_connections),
                         .max_header_bytes = static_cast<uint32_t>(config.max_header_bytes),
                         .max_body_bytes = config.max_body_bytes,
                         .max_arriving_bytes = kArrivingBodies * config.max_body_bytes,
                         .idle_seconds = config.idle_seconds,
                         .tls = config.tls ? tls : TlsConfig{},
                         .keep_alive = true,
                         .refusal = [](int status, const std::string& remedy) { return openai_error(status, remedy); }},
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

HttpResponse OpenAiServer::describe_model(const std::string& id) const {
  const absl::StatusOr<const ServedModel*> served = state_.find_model(id);
  if (!served.ok()) return openai_error(served.status());
  return json_response(model_json(**served, state_.started()));
}

void OpenAiServer::answer(HttpRequest request, std::shared_ptr<HttpExchange> exchange) {
  const auto respond = [&exchange](HttpResponse response) { exchange->respond(std::move(response), [](bool) {}); };
  const std::string& path = request.path;
  const bool completions = path == "/v1/completions", chat = path == "/v1/chat/completions";
  if (completions || chat) {
    if (request.method != "POST") return respond(wrong_method(path, "POST"));
    return start_openai_call(state_, completions ? OpenAiEndpoint::kCompletions : OpenAiEndpoint::kChat,
                             std::move(request), std::move(exchange));
  }
  std::optional<HttpResponse> probe = probes_.answer(path);
  const bool models = path.starts_with(kModels) && (path.size() == kModels.size() || path[kModels.size()] == '/');
  if (!probe && !models) return respond(openai_error(404, kPaths));
  if (request.method != "GET") return respond(wrong_method(path, "GET"));
  if (probe) return respond(*std::move(probe));
  std::shared_ptr<KeyUse> key;
  const absl::Status admitted =
      state_.authenticator().admit(read_authorization(request.authorization), KeyScope::kAny, key);
  if (!admitted.ok()) return respond(openai_error(admitted));
  respond(path.size() <= kModels.size() + 1 ? list_models() : describe_model(path.substr(kModels.size() + 1)));
}

}  // namespace pkv
