#include "server/http/metrics_exporter.h"

#include <prometheus/text_serializer.h>

#include <utility>

#include "absl/strings/str_cat.h"

namespace pkv {
namespace {

// Whoever computes goes first: a scrape may take a few milliseconds longer, a token may not.
constexpr int kNice = 10;
// Of a body, which nobody needs to send: enough to be told that only GET is served.
constexpr uint64_t kMaxBodyBytes = 16 << 10;

HttpResponse refusal(const HttpRefusal& refusal) {
  return {.status = refusal.status, .body = absl::StrCat(refusal.remedy, "\n")};
}

}  // namespace

absl::StatusOr<std::unique_ptr<MetricsExporter>> MetricsExporter::start(const std::string& listen, Sources sources) {
  std::unique_ptr<MetricsExporter> exporter(new MetricsExporter(std::move(sources)));
  absl::StatusOr<std::unique_ptr<HttpServer>> http = HttpServer::start(
      {.listen = listen,
       .max_body_bytes = kMaxBodyBytes,
       .max_arriving_bytes = 64 * kMaxBodyBytes,
       .nice = kNice,
       .refusal = refusal},
      [self = exporter.get()](const HttpRequest& request, const std::shared_ptr<HttpExchange>& exchange) {
        exchange->respond(self->respond(request), [](bool) {});
      });
  if (!http.ok()) {
    return absl::UnavailableError(absl::StrCat(
        "metrics.listen: cannot listen on ", listen, ": ", std::string(http.status().message()),
        "; choose another with --set metrics.listen=HOST:PORT, or serve no metrics with --set metrics.listen="));
  }
  exporter->http_ = *std::move(http);
  return exporter;
}

HttpResponse MetricsExporter::respond(const HttpRequest& request) const {
  if (request.method != "GET") return {.status = 405, .body = "there is only GET\n", .headers = "Allow: GET, HEAD\r\n"};
  if (std::optional<HttpResponse> probe = sources_.probes.answer(request.path)) return *std::move(probe);
  if (request.path != "/metrics") return {.status = 404, .body = "there are /metrics, /health, /healthz and /readyz\n"};
  return {.content_type = "text/plain; version=0.0.4; charset=utf-8",
          .body = prometheus::TextSerializer().Serialize(metric_families(sources_.snapshot()))};
}

}  // namespace pkv
