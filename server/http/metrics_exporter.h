// Serves /metrics for Prometheus. Nothing is counted twice: every scrape reads the engine's latest snapshot and the
// request counters.
#pragma once

#include <prometheus/metric_family.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/engine/stats.h"
#include "server/telemetry/request_metrics.h"

namespace prometheus {
class Collectable;
class Exposer;
}  // namespace prometheus

namespace pkv {

// What one scrape sees. Without a model (loading) its labels are empty and the engine's figures zero.
struct MetricsSnapshot {
  bool loaded = false;
  std::string model;
  std::string architecture;
  std::string weights;
  std::string device;  // cpu, reference, cuda
  uint64_t weight_bytes = 0;
  std::vector<std::string> policies;  // all that there are
  EngineStats engine;
  RequestMetrics::Snapshot requests;
};

std::vector<prometheus::MetricFamily> metric_families(const MetricsSnapshot& snapshot);

class MetricsExporter {
 public:
  // `source` is called from HTTP threads until the exporter is destroyed. UNAVAILABLE where the address cannot be had.
  static absl::StatusOr<std::unique_ptr<MetricsExporter>> start(const std::string& listen,
                                                                std::function<MetricsSnapshot()> source);
  ~MetricsExporter();
  int port() const;

 private:
  MetricsExporter() = default;
  std::shared_ptr<prometheus::Collectable> collectable_;
  std::unique_ptr<prometheus::Exposer> exposer_;
};

}  // namespace pkv
