#include "server/telemetry/request_metrics.h"

#include <algorithm>

namespace pkv {
namespace {

// The last of `names` stands for all that are not among them.
size_t place(const std::vector<std::string_view>& names, std::string_view name) {
  const auto found = std::find(names.begin(), names.end() - 1, name);
  return static_cast<size_t>(found - names.begin());
}

}  // namespace

RequestMetrics::RequestMetrics(Labels labels) : labels_(std::move(labels)) {
  labels_.policies.push_back(kNoPolicy);
  labels_.codes.push_back(kOther);
  labels_.reasons.push_back(kOther);
  requests_ = std::make_unique<std::atomic<uint64_t>[]>(labels_.policies.size() * labels_.codes.size());
  rejected_ = std::make_unique<std::atomic<uint64_t>[]>(labels_.reasons.size());
}

void RequestMetrics::count_end(std::string_view policy, std::string_view code) {
  ++requests_[place(labels_.policies, policy) * labels_.codes.size() + place(labels_.codes, code)];
}

void RequestMetrics::count_rejection(std::string_view reason) { ++rejected_[place(labels_.reasons, reason)]; }

RequestMetrics::Snapshot RequestMetrics::snapshot() const {
  Snapshot snapshot;
  const std::atomic<uint64_t>* counter = requests_.get();
  for (const std::string_view policy : labels_.policies) {
    for (const std::string_view code : labels_.codes) {
      const uint64_t count = *counter++;
      const bool expected = code != kOther && labels_.can_occur(policy, code);
      if (count > 0 || expected) snapshot.requests[{std::string(policy), std::string(code)}] = count;
    }
  }
  for (size_t i = 0; i < labels_.reasons.size(); ++i) {
    const uint64_t count = rejected_[i];
    if (count > 0 || labels_.reasons[i] != kOther) snapshot.rejected[std::string(labels_.reasons[i])] = count;
  }
  return snapshot;
}

}  // namespace pkv
