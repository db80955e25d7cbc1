// A distribution with fixed bounds that one thread fills while others read it: no lock and no allocation on either
// side.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace pkv {

class Histogram {
 public:
  // `bounds`: upper ends of the buckets, inclusive and ascending; they must outlive the histogram. What is above the
  // last has a bucket of its own.
  explicit Histogram(std::span<const double> bounds);

  void observe(double value);

  struct Reading {
    std::span<const double> bounds;
    std::vector<uint64_t> buckets;  // [bounds + 1], each by itself
    uint64_t count = 0;             // the sum of `buckets`, whatever is observed meanwhile
    double sum = 0;
  };
  Reading read() const;

 private:
  std::span<const double> bounds_;
  std::unique_ptr<std::atomic<uint64_t>[]> buckets_;
  std::atomic<double> sum_ = 0;
};

}  // namespace pkv
