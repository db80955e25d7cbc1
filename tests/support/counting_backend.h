// Counts the operations that go through it. One thread runs them, as every backend's; any may read the counts.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <string_view>

#include "tests/support/forwarding_backend.h"

namespace pkv::test {

class CountingBackend : public ForwardingBackend {
 public:
  using ForwardingBackend::ForwardingBackend;
  using Counts = std::map<std::string, int64_t, std::less<>>;

  // By the operation's name in Backend; those that never ran are missing.
  Counts counts() const {
    std::lock_guard lock(mutex_);
    return counts_;
  }
  int64_t count(std::string_view operation) const {
    std::lock_guard lock(mutex_);
    const auto found = counts_.find(operation);
    return found == counts_.end() ? 0 : found->second;
  }
  int64_t total() const {
    int64_t total = 0;
    for (const auto& [operation, count] : counts()) total += count;
    return total;
  }
  void reset() {
    std::lock_guard lock(mutex_);
    counts_.clear();
  }

 protected:
  void run(std::string_view operation, absl::FunctionRef<void()> forward) override {
    {
      std::lock_guard lock(mutex_);
      const auto found = counts_.find(operation);
      ++(found == counts_.end() ? counts_.emplace(operation, 0).first : found)->second;
    }
    forward();
  }

 private:
  mutable std::mutex mutex_;
  Counts counts_;
};

}  // namespace pkv::test
