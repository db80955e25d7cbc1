// Times in buckets whose width grows with the time: any number of them in fixed memory, percentiles within 0.4 %.
#pragma once

#include <cstdint>
#include <vector>

namespace pkv::client {

// Buckets are exact below 256 microseconds; from there on each doubling has 128 of them, and a percentile is the
// middle of its bucket, at most 1/256 from the time that was recorded. Count, sum, least and largest are exact.
class BenchHistogram {
 public:
  BenchHistogram();

  // Negative times count as none at all, times over 12 days as 12 days.
  void add(double seconds);

  uint64_t count() const { return count_; }
  double mean() const { return count_ == 0 ? 0 : sum_ / static_cast<double>(count_); }
  double min() const { return count_ == 0 ? 0 : min_; }
  double max() const { return max_; }
  // Nearest rank: the smallest recorded time that at least `percent` of all do not exceed, of which the bucket is
  // known. 0 where nothing was recorded.
  double percentile(double percent) const;

 private:
  std::vector<uint64_t> buckets_;
  uint64_t count_ = 0;
  double sum_ = 0, min_ = 0, max_ = 0;
};

}  // namespace pkv::client
