// A bucket's number is the octave and the seven bits behind the leading one.
#include "client/bench/histogram.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace pkv::client {
namespace {

constexpr uint64_t kExact = 256;  // microseconds with a bucket of their own
constexpr uint64_t kBucketsOfOctave = 128;
constexpr int kExactBits = 8;  // bit_width of the last of them
constexpr int kMostBits = 40;  // 2^40 microseconds are 12.7 days

size_t bucket_of(uint64_t micros) {
  if (micros < kExact) return micros;
  const int octave = std::bit_width(micros) - kExactBits;  // from 1
  return kExact + static_cast<uint64_t>(octave - 1) * kBucketsOfOctave + ((micros >> octave) - kBucketsOfOctave);
}

// Middle of the bucket, in microseconds.
double middle_of(size_t bucket) {
  if (bucket < kExact) return static_cast<double>(bucket);
  const uint64_t octave = (bucket - kExact) / kBucketsOfOctave + 1;
  const uint64_t begin = ((bucket - kExact) % kBucketsOfOctave + kBucketsOfOctave) << octave;
  return static_cast<double>(begin) + static_cast<double>(uint64_t{1} << octave) / 2;
}

}  // namespace

BenchHistogram::BenchHistogram() : buckets_(bucket_of((uint64_t{1} << kMostBits) - 1) + 1) {}

void BenchHistogram::add(double seconds) {
  const double time = std::clamp(seconds, 0.0, static_cast<double>((uint64_t{1} << kMostBits) - 1) / 1e6);
  ++buckets_[bucket_of(static_cast<uint64_t>(std::llround(time * 1e6)))];
  min_ = count_ == 0 ? time : std::min(min_, time);
  max_ = std::max(max_, time);
  sum_ += time;
  ++count_;
}

double BenchHistogram::percentile(double percent) const {
  if (count_ == 0) return 0;
  const double wanted = std::ceil(percent / 100 * static_cast<double>(count_));
  const uint64_t rank = std::clamp<uint64_t>(static_cast<uint64_t>(std::max(1.0, wanted)), 1, count_);
  if (rank == count_) return max_;
  uint64_t seen = 0;
  for (size_t i = 0; i < buckets_.size(); ++i) {
    seen += buckets_[i];
    if (seen >= rank) return std::clamp(middle_of(i) / 1e6, min_, max_);
  }
  return max_;  // not reached: the counts add up to count_
}

}  // namespace pkv::client
