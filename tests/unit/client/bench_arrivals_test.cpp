// Arrivals of an open loop: as many and as spaced as asked, at times that nothing but the plan decides.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "client/bench/arrivals.h"

namespace pkv::client {
namespace {

std::vector<Arrival> all(const ArrivalPlan& plan) {
  ArrivalSchedule schedule(plan);
  std::vector<Arrival> arrivals;
  while (const auto arrival = schedule.next()) {
    EXPECT_TRUE(arrivals.empty() || arrival->at >= arrivals.back().at);
    arrivals.push_back(*arrival);
  }
  EXPECT_FALSE(schedule.next().has_value());
  return arrivals;
}

std::vector<double> times(const std::vector<Arrival>& arrivals) {
  std::vector<double> at;
  for (const Arrival& arrival : arrivals) at.push_back(arrival.at);
  return at;
}

TEST(Arrivals, EvenlySpacedFromTheBeginning) {
  const auto arrivals = all({.rate_from = 4, .rate_to = 4, .poisson = false, .seconds = 1});
  EXPECT_THAT(times(arrivals), testing::ElementsAre(0, 0.25, 0.5, 0.75));
  EXPECT_THAT(arrivals, testing::Each(testing::Field(&Arrival::measured, true)));
}

TEST(Arrivals, TheFirstLimitEnds) {
  EXPECT_EQ(all({.rate_from = 4, .rate_to = 4, .poisson = false, .seconds = 1, .requests = 3}).size(), 3);
  EXPECT_EQ(all({.rate_from = 4, .rate_to = 4, .poisson = false, .seconds = 1, .requests = 30}).size(), 4);
  EXPECT_EQ(all({.rate_from = 4, .rate_to = 4, .poisson = true, .requests = 30}).size(), 30);
}

TEST(Arrivals, PoissonGapsAreExponential) {
  const auto at = times(all({.rate_from = 50, .rate_to = 50, .requests = 20000, .seed = 3}));
  double sum = 0, squares = 0;
  for (size_t i = 1; i < at.size(); ++i) {
    const double gap = at[i] - at[i - 1];
    sum += gap;
    squares += gap * gap;
  }
  const double mean = sum / static_cast<double>(at.size() - 1);
  EXPECT_NEAR(mean, 0.02, 0.001);
  // Of an exponential distribution the deviation is the mean; of even spacing it is 0.
  EXPECT_NEAR(std::sqrt(squares / static_cast<double>(at.size() - 1) - mean * mean), 0.02, 0.001);
}

TEST(Arrivals, RepeatWithTheSeedOnly) {
  const ArrivalPlan plan{.rate_from = 5, .rate_to = 5, .requests = 10, .seed = 9};
  ArrivalPlan other = plan;
  other.seed = 10;
  EXPECT_EQ(times(all(plan)), times(all(plan)));
  EXPECT_NE(times(all(plan)), times(all(other)));
}

TEST(Arrivals, ARampChangesTheRateEvenly) {
  const auto at = times(all({.rate_from = 10, .rate_to = 30, .poisson = false, .seconds = 10}));
  EXPECT_EQ(at.size(), 200);
  const auto within = [&](double from, double to) {
    return std::count_if(at.begin(), at.end(), [&](double time) { return time >= from && time < to; });
  };
  EXPECT_NEAR(static_cast<double>(within(0, 1)), 11, 1);
  EXPECT_NEAR(static_cast<double>(within(4.5, 5.5)), 20, 1);
  EXPECT_NEAR(static_cast<double>(within(9, 10)), 29, 1);
  const auto down = times(all({.rate_from = 30, .rate_to = 10, .poisson = false, .requests = 200}));
  EXPECT_EQ(down.size(), 200);
  EXPECT_LT(down[100], 5);
  EXPECT_LT(down.back(), 10);
}

TEST(Arrivals, WarmupBySeconds) {
  const auto arrivals = all({.rate_from = 2, .rate_to = 4, .poisson = false, .warmup = {.seconds = 2}, .seconds = 1});
  EXPECT_THAT(times(arrivals), testing::ElementsAre(0, 0.5, 1, 1.5, 2, testing::DoubleNear(2.4142, 0.01),
                                                    testing::DoubleNear(2.7321, 0.01)));
  for (const Arrival& arrival : arrivals) EXPECT_EQ(arrival.measured, arrival.at >= 2);
}

TEST(Arrivals, WarmupByRequests) {
  for (const bool poisson : {false, true}) {
    ArrivalSchedule schedule(
        {.rate_from = 10, .rate_to = 10, .poisson = poisson, .warmup = {.requests = 3}, .requests = 5});
    std::vector<Arrival> arrivals;
    while (const auto arrival = schedule.next()) arrivals.push_back(*arrival);
    ASSERT_EQ(arrivals.size(), 8);
    for (size_t i = 0; i < arrivals.size(); ++i) EXPECT_EQ(arrivals[i].measured, i >= 3);
    EXPECT_GE(schedule.measured_from(), arrivals[2].at);
    EXPECT_LE(schedule.measured_from(), arrivals[3].at);
  }
}

}  // namespace
}  // namespace pkv::client
