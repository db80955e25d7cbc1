#include "server/telemetry/request_metrics.h"

namespace pkv {

RequestMetrics::RequestMetrics(std::span<const std::string_view> policies, std::span<const std::string_view> codes,
                               std::span<const std::string_view> reasons) {
  for (const std::string_view code : codes) {
    counts_.requests[{std::string(kNoPolicy), std::string(code)}] = 0;
    for (const std::string_view policy : policies) counts_.requests[{std::string(policy), std::string(code)}] = 0;
  }
  for (const std::string_view reason : reasons) counts_.rejected[std::string(reason)] = 0;
}

void RequestMetrics::count_end(std::string_view policy, std::string_view code) {
  const std::lock_guard lock(mutex_);
  ++counts_.requests[{std::string(policy), std::string(code)}];
}

void RequestMetrics::count_rejection(std::string_view reason) {
  const std::lock_guard lock(mutex_);
  ++counts_.rejected[std::string(reason)];
}

RequestMetrics::Snapshot RequestMetrics::snapshot() const {
  const std::lock_guard lock(mutex_);
  return counts_;
}

}  // namespace pkv
