// Counts how requests ended as callers saw it, including those refused before they reached the engine. Thread-safe.
// Every label combination is there from the start, so that rates are right from the first event on.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace pkv {

// The label of a request whose policy was not known when it was refused.
inline constexpr std::string_view kNoPolicy = "none";

class RequestMetrics {
 public:
  // `policies` without kNoPolicy, `codes` gRPC status code names, `reasons` of refusals.
  RequestMetrics(std::span<const std::string_view> policies, std::span<const std::string_view> codes,
                 std::span<const std::string_view> reasons);

  void count_end(std::string_view policy, std::string_view code);
  void count_rejection(std::string_view reason);

  struct Snapshot {
    std::map<std::pair<std::string, std::string>, uint64_t> requests;  // by policy and code
    std::map<std::string, uint64_t> rejected;                          // by reason
  };
  Snapshot snapshot() const;

 private:
  mutable std::mutex mutex_;
  Snapshot counts_;
};

}  // namespace pkv
