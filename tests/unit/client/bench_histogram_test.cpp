// Percentiles against the sorted values themselves.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "client/bench/histogram.h"

namespace pkv::client {
namespace {

TEST(BenchHistogram, NothingRecorded) {
  const BenchHistogram empty;
  EXPECT_EQ(empty.count(), 0);
  EXPECT_EQ(empty.percentile(50), 0);
  EXPECT_EQ(empty.max(), 0);
}

TEST(BenchHistogram, NearestRank) {
  BenchHistogram times;
  for (int i = 1; i <= 10; ++i) times.add(i * 1e-5);  // 10 to 100 us, each in a bucket of its own
  EXPECT_NEAR(times.percentile(50), 5e-5, 1e-9);
  EXPECT_NEAR(times.percentile(51), 6e-5, 1e-9);
  EXPECT_NEAR(times.percentile(90), 9e-5, 1e-9);
  EXPECT_NEAR(times.percentile(91), 1e-4, 1e-9);
  EXPECT_NEAR(times.percentile(0), 1e-5, 1e-9);
  EXPECT_EQ(times.percentile(100), times.max());
  EXPECT_NEAR(times.mean(), 5.5e-5, 1e-12);
}

TEST(BenchHistogram, WithinItsPromiseOverManyOrders) {
  std::mt19937_64 rng(1);
  std::lognormal_distribution<double> draw(-3, 3);
  std::vector<double> values;
  BenchHistogram times;
  for (int i = 0; i < 20000; ++i) {
    values.push_back(draw(rng));
    times.add(values.back());
  }
  std::sort(values.begin(), values.end());
  for (const double percent : {1.0, 10.0, 50.0, 90.0, 95.0, 99.0, 99.9}) {
    const double exact = values[static_cast<size_t>(std::ceil(percent / 100 * 20000)) - 1];
    EXPECT_NEAR(times.percentile(percent), exact, exact * 0.004 + 1e-6) << percent;
  }
  EXPECT_EQ(times.min(), values.front());
  EXPECT_EQ(times.max(), values.back());
}

TEST(BenchHistogram, OneValueIsEveryPercentile) {
  BenchHistogram times;
  times.add(1.2345678);
  for (const double percent : {0.0, 50.0, 99.0, 100.0}) EXPECT_EQ(times.percentile(percent), 1.2345678);
}

TEST(BenchHistogram, TimesOutOfRangeAreKeptAtItsEnds) {
  BenchHistogram times;
  times.add(-1);
  times.add(1e9);
  EXPECT_EQ(times.count(), 2);
  EXPECT_EQ(times.min(), 0);
  EXPECT_GT(times.max(), 12 * 86400.0);
}

}  // namespace
}  // namespace pkv::client
