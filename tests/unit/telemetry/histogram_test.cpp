#include "server/telemetry/histogram.h"

#include <gmock/gmock.h>

#include <atomic>
#include <numeric>
#include <thread>

#include "server/telemetry/latest.h"

namespace pkv {
namespace {

constexpr double kBounds[] = {0.5, 1, 2};

TEST(Histogram, BoundsBelongToTheirBuckets) {
  Histogram histogram(kBounds);
  for (const double value : {-1.0, 0.5, 0.75, 1.0, 2.0, 2.5, 1e300}) histogram.observe(value);
  const Histogram::Reading reading = histogram.read();
  EXPECT_THAT(reading.buckets, ::testing::ElementsAre(2, 2, 1, 2));
  EXPECT_THAT(reading.bounds, ::testing::ElementsAre(0.5, 1, 2));
  EXPECT_EQ(reading.count, 7u);
}

TEST(Histogram, TheSumIsThatOfTheValues) {
  Histogram histogram(kBounds);
  EXPECT_EQ(histogram.read().sum, 0);
  for (int i = 1; i <= 100; ++i) histogram.observe(i);
  EXPECT_EQ(histogram.read().sum, 5050);
}

TEST(Histogram, CountAndBucketsAgreeWhileValuesCome) {
  constexpr uint64_t kValues = 200'000;
  Histogram histogram(kBounds);
  std::jthread writer([&] {
    for (uint64_t i = 0; i < kValues; ++i) histogram.observe(static_cast<double>(i % 4));
  });
  uint64_t before = 0;
  while (before < kValues) {
    const Histogram::Reading reading = histogram.read();
    EXPECT_EQ(std::accumulate(reading.buckets.begin(), reading.buckets.end(), uint64_t{0}), reading.count);
    ASSERT_GE(reading.count, before);
    before = reading.count;
  }
  writer.join();
  EXPECT_THAT(histogram.read().buckets, ::testing::ElementsAre(50'000, 50'000, 50'000, 50'000));
  EXPECT_EQ(histogram.read().sum, 1.5 * kValues);
}

TEST(Latest, WhatWasTakenStaysAsItWas) {
  Latest<int> latest;
  EXPECT_EQ(latest.get(), nullptr);
  latest.set(std::make_shared<int>(1));
  const std::shared_ptr<const int> taken = latest.get();
  latest.set(std::make_shared<int>(2));
  EXPECT_EQ(*taken, 1);
  EXPECT_EQ(*latest.get(), 2);
  EXPECT_EQ(taken.use_count(), 1);
}

}  // namespace
}  // namespace pkv
