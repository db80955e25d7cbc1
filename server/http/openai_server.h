// The port for clients of OpenAI's API: /v1/completions, /v1/chat/completions, /v1/models, and the probes. docs/http.md
// describes it.
#pragma once

#include <memory>
#include <string_view>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/api/server_state.h"
#include "server/config/config.h"
#include "server/http/http_server.h"
#include "server/http/probes.h"

namespace pkv {

class OpenAiServer {
 public:
  // Listens at once on config.listen, with `tls`, null for plain text, unless config.tls is false. UNAVAILABLE, naming
  // the setting and the system's reason, where that cannot be had. `state` must outlive it.
  static absl::StatusOr<std::unique_ptr<OpenAiServer>> start(const HttpConfig& config,
                                                             std::shared_ptr<const TlsFiles> tls, ServerState& state,
                                                             Probes probes);
  int port() const { return http_->port(); }
  // Once the engine has ended all requests: until their answers are sent, for `flush_time` at most.
  void await_answers(absl::Duration flush_time) { http_->await_answers(absl::ToDoubleSeconds(flush_time)); }

 private:
  OpenAiServer(ServerState& state, Probes probes) : state_(state), probes_(std::move(probes)) {}
  void answer(HttpRequest request, std::shared_ptr<HttpExchange> exchange);
  HttpResponse list_models() const;
  HttpResponse describe_model(std::string_view part) const;  // of the path, which names it

  ServerState& state_;
  const Probes probes_;
  std::unique_ptr<HttpServer> http_;  // ends first: it calls answer()
};

}  // namespace pkv
