// Random workloads that can be repeated: lengths by a distribution, choices by weight, all from the seed and the
// number of a request. Shared by `pyramidkv bench` and pkv-stress; knows neither gRPC nor the server.
#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <vector>

namespace pkv::client {

// The random numbers of one request: the same for the same seed and number, whatever other requests drew.
class WorkloadRandom {
 public:
  WorkloadRandom(uint64_t seed, uint64_t index);

  // Uniform in [from, to]; `from` where `to` is smaller.
  int64_t number(int64_t from, int64_t to);
  bool chance(int32_t percent) { return number(1, 100) <= percent; }
  double exponential();  // mean 1
  double normal();       // mean 0, deviation 1

 private:
  std::mt19937_64 rng_;
};

// How many tokens, drawn for every request: at least 1.
class LengthDistribution {
 public:
  static constexpr int64_t kLargest = 1'000'000'000;

  static LengthDistribution constant(int64_t tokens) { return uniform(tokens, tokens); }
  static LengthDistribution uniform(int64_t from, int64_t to);

  // "512", "uniform:100-2000", "lognormal:MEDIAN,SIGMA[,MAX]" or "exponential:MEAN[,MAX]". Returns an empty string or
  // what is wrong, without saying where.
  static std::string parse(const std::string& text, LengthDistribution& distribution);
  static const char* forms() { return "512, uniform:100-2000, lognormal:MEDIAN,SIGMA[,MAX] or exponential:MEAN[,MAX]"; }

  int64_t sample(WorkloadRandom& random) const;
  int64_t typical() const;                  // the median, about
  int64_t largest() const { return max_; }  // never more

 private:
  enum class Kind : uint8_t { kUniform, kLognormal, kExponential };

  Kind kind_ = Kind::kUniform;
  int64_t min_ = 1, max_ = 1;
  double middle_ = 1;  // median or mean
  double sigma_ = 0;
};

// Index i is drawn weights[i] times of the sum of all.
class WeightedChoice {
 public:
  static constexpr uint32_t kLargestWeight = 1'000'000;

  // At least one weight, none of them 0.
  explicit WeightedChoice(const std::vector<uint32_t>& weights);
  size_t sample(WorkloadRandom& random) const;

 private:
  std::vector<int64_t> ends_;  // sums up to each index
};

}  // namespace pkv::client
