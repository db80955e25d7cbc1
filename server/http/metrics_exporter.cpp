#include "server/http/metrics_exporter.h"

#include <prometheus/collectable.h>
#include <prometheus/exposer.h>

#include <exception>
#include <utility>

#include "absl/strings/str_cat.h"

namespace pkv {
namespace {

class SnapshotCollectable final : public prometheus::Collectable {
 public:
  explicit SnapshotCollectable(std::function<MetricsSnapshot()> source) : source_(std::move(source)) {}
  std::vector<prometheus::MetricFamily> Collect() const override { return metric_families(source_()); }

 private:
  std::function<MetricsSnapshot()> source_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<MetricsExporter>> MetricsExporter::start(const std::string& listen,
                                                                        std::function<MetricsSnapshot()> source) {
  std::unique_ptr<MetricsExporter> exporter(new MetricsExporter());
  exporter->collectable_ = std::make_shared<SnapshotCollectable>(std::move(source));
  try {
    exporter->exposer_ = std::make_unique<prometheus::Exposer>(listen);
    exporter->exposer_->RegisterCollectable(exporter->collectable_);
  } catch (const std::exception& error) {
    return absl::UnavailableError(
        absl::StrCat("metrics.listen: ", listen, ": the address cannot be listened on: ", error.what()));
  }
  return exporter;
}

MetricsExporter::~MetricsExporter() = default;

int MetricsExporter::port() const {
  const std::vector<int> ports = exposer_->GetListeningPorts();
  return ports.empty() ? 0 : ports.front();
}

}  // namespace pkv
