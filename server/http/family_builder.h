// Metric families put together one sample after the other.
#pragma once

#include <prometheus/metric_family.h>

#include <string>
#include <utility>
#include <vector>

#include "server/telemetry/histogram.h"

namespace pkv {

class FamilyBuilder {
 public:
  using Labels = std::vector<prometheus::ClientMetric::Label>;
  using Type = prometheus::MetricType;

  // Starts a family; the samples that follow are its own. begin() adds the server's prefix.
  void begin(const std::string& name, const std::string& help, Type type);
  void begin_standard(const std::string& name, const std::string& help, Type type);
  void sample(Labels labels, double value);
  void sample(Labels labels, const Histogram::Reading& reading);

  void gauge(const std::string& name, const std::string& help, double value);
  void counter(const std::string& name, const std::string& help, double value);
  void histogram(const std::string& name, const std::string& help, const Histogram& histogram);

  std::vector<prometheus::MetricFamily> take() { return std::move(families_); }

 private:
  std::vector<prometheus::MetricFamily> families_;
};

}  // namespace pkv
