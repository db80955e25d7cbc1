// Lengths and choices: within their bounds, about where they should be, and the same for the same seed and number.
#include "client/bench/workload.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

namespace pkv::client {
namespace {

using testing::HasSubstr;

std::vector<int64_t> samples(const std::string& text, uint64_t seed = 1) {
  LengthDistribution distribution;
  EXPECT_EQ(LengthDistribution::parse(text, distribution), "");
  std::vector<int64_t> drawn;
  for (uint64_t i = 0; i < 4001; ++i) {
    WorkloadRandom random(seed, i);
    drawn.push_back(distribution.sample(random));
    EXPECT_GE(drawn.back(), 1);
    EXPECT_LE(drawn.back(), distribution.largest());
  }
  return drawn;
}

double mean(const std::vector<int64_t>& values) {
  double sum = 0;
  for (int64_t value : values) sum += static_cast<double>(value);
  return sum / static_cast<double>(values.size());
}

int64_t median(std::vector<int64_t> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2), values.end());
  return values[values.size() / 2];
}

TEST(LengthDistribution, Constant) { EXPECT_THAT(samples("512"), testing::Each(512)); }

TEST(LengthDistribution, UniformReachesBothEnds) {
  const auto drawn = samples("uniform:10-14");
  EXPECT_THAT(drawn, testing::Each(testing::AllOf(testing::Ge(10), testing::Le(14))));
  EXPECT_THAT(drawn, testing::IsSupersetOf({10, 11, 12, 13, 14}));
}

TEST(LengthDistribution, LognormalHasItsMedianAndSpread) {
  const auto drawn = samples("lognormal:1000,0.5");
  EXPECT_NEAR(static_cast<double>(median(drawn)), 1000, 50);
  EXPECT_NEAR(mean(drawn), 1000 * std::exp(0.125), 60);
  EXPECT_EQ(*std::max_element(drawn.begin(), drawn.end()) > 2500, true);
  EXPECT_THAT(samples("lognormal:1000,0.5,1200"), testing::Each(testing::Le(1200)));
}

TEST(LengthDistribution, ExponentialHasItsMean) {
  EXPECT_NEAR(mean(samples("exponential:200")), 200, 15);
  EXPECT_THAT(samples("exponential:200,300"), testing::Contains(300));
}

TEST(LengthDistribution, RepeatsWithTheSeedOnly) {
  EXPECT_EQ(samples("exponential:200", 7), samples("exponential:200", 7));
  EXPECT_NE(samples("exponential:200", 7), samples("exponential:200", 8));
}

TEST(LengthDistribution, RefusesWhatItDoesNotKnow) {
  for (const char* text : {"",
                           "0",
                           "-5",
                           "abc",
                           "1.5",
                           "uniform:",
                           "uniform:5",
                           "uniform:0-5",
                           "uniform:5-",
                           "uniform:1-2-3",
                           "lognormal:100",
                           "lognormal:100,",
                           "lognormal:100,-1",
                           "lognormal:nan,1",
                           "lognormal:100,1,0",
                           "lognormal:100,1,5,6",
                           "exponential:0",
                           "exponential:inf",
                           "exponential:5,x",
                           "normal:5",
                           "2000000000"}) {
    LengthDistribution distribution = LengthDistribution::constant(3);
    EXPECT_THAT(LengthDistribution::parse(text, distribution), HasSubstr("is not 512, uniform:100-2000")) << text;
    EXPECT_EQ(distribution.largest(), 3) << text;
  }
  LengthDistribution distribution;
  EXPECT_THAT(LengthDistribution::parse("uniform:9-5", distribution), HasSubstr("larger"));
}

TEST(WeightedChoice, FollowsTheWeights) {
  const WeightedChoice choice({1, 3, 6});
  std::vector<int> counts(3);
  for (uint64_t i = 0; i < 10000; ++i) {
    WorkloadRandom random(5, i);
    ++counts[choice.sample(random)];
  }
  EXPECT_NEAR(counts[0], 1000, 120);
  EXPECT_NEAR(counts[1], 3000, 200);
  EXPECT_NEAR(counts[2], 6000, 200);
}

}  // namespace
}  // namespace pkv::client
