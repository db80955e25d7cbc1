#include "server/http/family_builder.h"

namespace pkv {

using prometheus::ClientMetric;

void FamilyBuilder::begin(const std::string& name, const std::string& help, Type type) {
  begin_standard("pyramidkv_" + name, help, type);
}

void FamilyBuilder::begin_standard(const std::string& name, const std::string& help, Type type) {
  families_.push_back({.name = name, .help = help, .type = type, .metric = {}});
}

void FamilyBuilder::sample(Labels labels, double value) {
  ClientMetric metric;
  metric.label = std::move(labels);
  (families_.back().type == Type::Counter ? metric.counter.value : metric.gauge.value) = value;
  families_.back().metric.push_back(std::move(metric));
}

void FamilyBuilder::sample(Labels labels, const Histogram::Reading& reading) {
  ClientMetric metric;
  metric.label = std::move(labels);
  metric.histogram.sample_count = reading.count;
  metric.histogram.sample_sum = reading.sum;
  uint64_t below = 0;  // the last bucket, without an upper end, is written by the serializer
  for (size_t i = 0; i < reading.bounds.size(); ++i) {
    below += reading.buckets[i];
    metric.histogram.bucket.push_back({.cumulative_count = below, .upper_bound = reading.bounds[i]});
  }
  families_.back().metric.push_back(std::move(metric));
}

void FamilyBuilder::gauge(const std::string& name, const std::string& help, double value) {
  begin(name, help, Type::Gauge);
  sample({}, value);
}

void FamilyBuilder::counter(const std::string& name, const std::string& help, double value) {
  begin(name, help, Type::Counter);
  sample({}, value);
}

void FamilyBuilder::histogram(const std::string& name, const std::string& help, const Histogram& histogram) {
  begin(name, help, Type::Histogram);
  sample({}, histogram.read());
}

}  // namespace pkv
