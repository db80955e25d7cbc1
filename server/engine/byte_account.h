// What one cache holds, summed over time.
#pragma once

#include <cstdint>

#include "server/engine/request_result.h"

namespace pkv {

class ByteAccount {
 public:
  // What the cache held until now it held for so many seconds more. Returns what that adds to the sums.
  CacheReport::ByteSeconds pass(double seconds) {
    const CacheReport::ByteSeconds added{.held = static_cast<double>(held_) * seconds,
                                         .full = static_cast<double>(full_) * seconds};
    sums_.held += added.held;
    sums_.full += added.full;
    return added;
  }
  // What it holds from now on, and what a full one would.
  void set(uint64_t held, uint64_t full) {
    held_ = held;
    full_ = full;
  }
  const CacheReport::ByteSeconds& sums() const { return sums_; }

 private:
  uint64_t held_ = 0, full_ = 0;
  CacheReport::ByteSeconds sums_;
};

}  // namespace pkv
