// Counts how requests ended as callers saw it, including those refused before they reached the engine. Safe from any
// thread, without locks. Every combination that can occur is there from the start, so that rates are right from the
// first event on.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace pkv {

// The label of a request that was refused before it was submitted to the engine.
inline constexpr std::string_view kNoPolicy = "none";
// The label of what is counted under no name of its own.
inline constexpr std::string_view kOther = "OTHER";

class RequestMetrics {
 public:
  struct Labels {
    std::vector<std::string_view> policies;  // without kNoPolicy
    std::vector<std::string_view> codes;     // gRPC status code names, all of them
    std::vector<std::string_view> reasons;   // of refusals
    // Of the policies, kNoPolicy included, and codes above.
    bool (*can_occur)(std::string_view policy, std::string_view code) = nullptr;
  };
  // The names must outlive it.
  explicit RequestMetrics(Labels labels);

  // Also what should not occur is counted: an unknown policy as kNoPolicy, an unknown code or reason as kOther.
  void count_end(std::string_view policy, std::string_view code);
  void count_rejection(std::string_view reason);

  // What can occur, and what did.
  struct Snapshot {
    std::map<std::pair<std::string, std::string>, uint64_t> requests;  // by policy and code
    std::map<std::string, uint64_t> rejected;                          // by reason
  };
  Snapshot snapshot() const;

 private:
  Labels labels_;                                      // with kNoPolicy and kOther at the ends of the lists
  std::unique_ptr<std::atomic<uint64_t>[]> requests_;  // [policies][codes]
  std::unique_ptr<std::atomic<uint64_t>[]> rejected_;  // [reasons]
};

}  // namespace pkv
