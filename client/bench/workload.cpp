// Distributions over std::mt19937_64.
#include "client/bench/workload.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace pkv::client {
namespace {

constexpr double kLargestSigma = 10;

bool read_length(absl::string_view text, int64_t& length) {
  return absl::SimpleAtoi(text, &length) && length >= 1 && length <= LengthDistribution::kLargest;
}

bool read_number(absl::string_view text, double largest, double& number) {
  return absl::SimpleAtod(text, &number) && number > 0 && number <= largest;
}

}  // namespace

WorkloadRandom::WorkloadRandom(uint64_t seed, uint64_t index) {
  std::seed_seq mixed{seed, seed >> 32, index};
  rng_.seed(mixed);
}

int64_t WorkloadRandom::number(int64_t from, int64_t to) {
  return std::uniform_int_distribution<int64_t>(from, std::max(from, to))(rng_);
}

double WorkloadRandom::exponential() { return std::exponential_distribution<double>(1)(rng_); }

double WorkloadRandom::normal() { return std::normal_distribution<double>(0, 1)(rng_); }

LengthDistribution LengthDistribution::uniform(int64_t from, int64_t to) {
  LengthDistribution made;
  made.min_ = from;
  made.max_ = std::max(from, to);
  return made;
}

std::string LengthDistribution::parse(const std::string& text, LengthDistribution& distribution) {
  const std::string complaint = absl::StrCat("'", text, "' is not ", forms());
  absl::string_view rest = text;
  LengthDistribution made;
  if (absl::ConsumePrefix(&rest, "uniform:")) {
    const std::vector<absl::string_view> ends = absl::StrSplit(rest, '-');
    if (ends.size() != 2 || !read_length(ends[0], made.min_) || !read_length(ends[1], made.max_)) return complaint;
    if (made.min_ > made.max_) return absl::StrCat("'", text, "': the first length is larger than the second");
    distribution = made;
    return "";
  }
  made.kind_ = absl::ConsumePrefix(&rest, "lognormal:")     ? Kind::kLognormal
               : absl::ConsumePrefix(&rest, "exponential:") ? Kind::kExponential
                                                            : Kind::kUniform;
  if (made.kind_ == Kind::kUniform) {
    if (!read_length(rest, made.min_)) return complaint;
    distribution = constant(made.min_);
    return "";
  }
  std::vector<absl::string_view> words = absl::StrSplit(rest, ',');
  if (!read_number(words[0], kLargest, made.middle_)) return complaint;
  words.erase(words.begin());
  if (made.kind_ == Kind::kLognormal) {
    if (words.empty() || !read_number(words[0], kLargestSigma, made.sigma_)) return complaint;
    words.erase(words.begin());
  }
  made.max_ = kLargest;
  if (words.size() > 1 || (words.size() == 1 && !read_length(words[0], made.max_))) return complaint;
  distribution = made;
  return "";
}

int64_t LengthDistribution::sample(WorkloadRandom& random) const {
  if (kind_ == Kind::kUniform) return random.number(min_, max_);
  const double length =
      middle_ * (kind_ == Kind::kLognormal ? std::exp(sigma_ * random.normal()) : random.exponential());
  return static_cast<int64_t>(std::clamp(std::round(length), static_cast<double>(min_), static_cast<double>(max_)));
}

int64_t LengthDistribution::typical() const {
  if (kind_ == Kind::kUniform) return min_ + (max_ - min_) / 2;
  return std::clamp(static_cast<int64_t>(std::lround(middle_)), min_, max_);
}

WeightedChoice::WeightedChoice(const std::vector<uint32_t>& weights) {
  int64_t sum = 0;
  for (uint32_t weight : weights) ends_.push_back(sum += weight);
}

size_t WeightedChoice::sample(WorkloadRandom& random) const {
  const int64_t drawn = random.number(1, ends_.back());
  return static_cast<size_t>(std::lower_bound(ends_.begin(), ends_.end(), drawn) - ends_.begin());
}

}  // namespace pkv::client
