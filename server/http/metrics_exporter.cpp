#include "server/http/metrics_exporter.h"

#include <prometheus/text_serializer.h>

#include <utility>

#include "absl/strings/str_cat.h"

namespace pkv {
namespace {

HttpResponse probe_answer(const absl::Status& status) {
  if (status.ok()) return {.body = "ok\n"};
  return {.status = 503, .body = absl::StrCat(std::string(status.message()), "\n")};
}

}  // namespace

absl::StatusOr<std::unique_ptr<MetricsExporter>> MetricsExporter::start(const std::string& listen, Sources sources) {
  std::unique_ptr<MetricsExporter> exporter(new MetricsExporter(std::move(sources)));
  absl::StatusOr<std::unique_ptr<HttpServer>> http =
      HttpServer::start(listen, [self = exporter.get()](const std::string& path) { return self->respond(path); });
  if (!http.ok()) {
    return absl::UnavailableError(absl::StrCat(
        "metrics.listen: cannot listen on ", listen, ": ", std::string(http.status().message()),
        "; choose another with --set metrics.listen=HOST:PORT, or serve no metrics with --set metrics.listen="));
  }
  exporter->http_ = *std::move(http);
  return exporter;
}

HttpResponse MetricsExporter::respond(const std::string& path) const {
  if (path == "/healthz") return probe_answer(sources_.live());
  if (path == "/readyz") return probe_answer(sources_.ready());
  if (path != "/metrics") return {.status = 404, .body = "there are /metrics, /healthz and /readyz\n"};
  return {.content_type = "text/plain; version=0.0.4; charset=utf-8",
          .body = prometheus::TextSerializer().Serialize(metric_families(sources_.snapshot()))};
}

}  // namespace pkv
