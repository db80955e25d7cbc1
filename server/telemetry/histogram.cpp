#include "server/telemetry/histogram.h"

#include <algorithm>

namespace pkv {

Histogram::Histogram(std::span<const double> bounds)
    : bounds_(bounds), buckets_(std::make_unique<std::atomic<uint64_t>[]>(bounds.size() + 1)) {}

void Histogram::observe(double value) {
  const auto bucket = static_cast<size_t>(std::lower_bound(bounds_.begin(), bounds_.end(), value) - bounds_.begin());
  buckets_[bucket].fetch_add(1, std::memory_order_relaxed);
  sum_.fetch_add(value, std::memory_order_relaxed);
}

Histogram::Reading Histogram::read() const {
  Reading reading{.bounds = bounds_};
  reading.buckets.reserve(bounds_.size() + 1);
  for (size_t i = 0; i <= bounds_.size(); ++i) {
    reading.buckets.push_back(buckets_[i].load(std::memory_order_relaxed));
    reading.count += reading.buckets.back();
  }
  reading.sum = sum_.load(std::memory_order_relaxed);
  return reading;
}

}  // namespace pkv
