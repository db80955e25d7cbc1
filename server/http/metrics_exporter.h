// Serves /metrics for Prometheus, and /healthz and /readyz for probes. Nothing is counted twice: every scrape reads the
// engine's latest snapshot, its distributions and the request counters, and takes no lock that the engine waits for.
#pragma once

#include <prometheus/metric_family.h>

#include <array>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/api/call_registry.h"
#include "server/engine/engine.h"
#include "server/engine/stats.h"
#include "server/http/http_server.h"
#include "server/http/probes.h"
#include "server/telemetry/request_metrics.h"

namespace pkv {

// What one scrape sees. Without a model (loading) the engine's figures are zero, and what names the model is left out.
struct MetricsSnapshot {
  std::optional<Engine::State> state;  // none: loading
  std::string model;
  std::string architecture;
  std::string weights;
  std::string device;  // cpu, reference, cuda
  uint64_t weight_bytes = 0;
  bool layers = true;                                   // whether bytes held are exported layer by layer
  uint64_t open_calls = 0;                              // ServerState::open_calls()
  std::array<uint64_t, kCallPhases.size()> calls = {};  // CallRegistry::count() of each phase
  uint64_t connections = 0;                             // of gRPC, as the next
  uint64_t connections_refused = 0;                     // since the start
  std::shared_ptr<const EngineStats> engine;            // nullptr: all zero
  RequestMetrics::Snapshot requests;
};

std::vector<prometheus::MetricFamily> metric_families(const MetricsSnapshot& snapshot);

class MetricsExporter {
 public:
  // All are called from the exporter's thread until it is destroyed.
  struct Sources {
    std::function<MetricsSnapshot()> snapshot;
    Probes probes;
  };
  // UNAVAILABLE, naming the setting and the system's reason, where the address cannot be had.
  static absl::StatusOr<std::unique_ptr<MetricsExporter>> start(const std::string& listen, Sources sources);
  int port() const { return http_->port(); }

 private:
  explicit MetricsExporter(Sources sources) : sources_(std::move(sources)) {}
  HttpResponse respond(const HttpRequest& request) const;

  Sources sources_;
  std::unique_ptr<HttpServer> http_;  // ends first: it calls respond()
};

}  // namespace pkv
