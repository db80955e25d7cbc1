// Selection, pooling and group reduction of the CPU backend against plain sorts and loops.
#include "kernels/cpu/lanes/select.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "attention_fixture.h"

namespace pkv {
namespace {

using ::testing::ElementsAre;
using ::testing::ElementsAreArray;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

std::vector<int32_t> select(std::vector<float> scores, int32_t rows, int32_t count) {
  ThreadPool pool(2);
  std::vector<int32_t> kept(static_cast<size_t>(rows) * (count + 1), -1);
  std::vector<int32_t> counts(rows, count);
  cpu_select_top(matrix(scores, rows), 0, {counts.data(), DType::kI32, 1, rows, rows},
                 {kept.data(), DType::kI32, rows, count + 1, count + 1}, pool);
  return kept;
}

std::vector<int32_t> sort_and_cut(const float* scores, int32_t columns, int32_t count) {
  std::vector<int32_t> order(columns);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return scores[a] > scores[b]; });
  order.resize(count);
  std::sort(order.begin(), order.end());
  return order;
}

TEST(SelectTest, AgreesWithAStableSortWhenMostScoresAreTied) {
  std::mt19937 rng(1);
  for (const int32_t columns : {1, 2, 17, 1000, 5000}) {
    for (const int32_t count : {0, 1, columns / 8, columns / 2, columns - 1, columns}) {
      std::vector<float> scores(3 * columns);
      for (float& x : scores) x = static_cast<float>(rng() % 9) * 0.25f - 1.0f;
      const std::vector<int32_t> kept = select(scores, 3, count);
      for (int32_t row = 0; row < 3; ++row) {
        const std::vector<int32_t> want = sort_and_cut(&scores[row * columns], columns, count);
        EXPECT_THAT(std::vector<int32_t>(kept.begin() + row * (count + 1), kept.begin() + row * (count + 1) + count),
                    ElementsAreArray(want));
        EXPECT_EQ(kept[row * (count + 1) + count], -1) << "wrote beyond the count";
      }
    }
  }
}

TEST(SelectTest, AgreesWithAStableSortOnDistinctScores) {
  std::vector<float> scores = random_floats(8000, 3);
  for (size_t i = 0; i < scores.size(); ++i) scores[i] *= std::exp2(static_cast<float>(i % 60) - 40.0f);
  std::vector<int32_t> kept = select(scores, 1, 1024);
  kept.pop_back();
  EXPECT_THAT(kept, ElementsAreArray(sort_and_cut(scores.data(), 8000, 1024)));
}

TEST(SelectTest, OrdersZerosInfinitiesAndNaNs) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const auto top = [](std::vector<float> scores, int32_t count) {
    std::vector<int32_t> kept = select(scores, 1, count);
    kept.pop_back();
    return kept;
  };
  EXPECT_THAT(top({-0.0f, 0.0f, -0.0f, 0.0f}, 2), ElementsAre(0, 1));
  EXPECT_THAT(top({-kInfinity, -3e38f, kInfinity, 3e38f}, 3), ElementsAre(1, 2, 3));
  EXPECT_THAT(top({nan, -1e30f, -nan, 5}, 2), ElementsAre(1, 3));
  EXPECT_THAT(top({-kInfinity, nan, -kInfinity}, 2), ElementsAre(0, 1));
}

std::vector<float> pool_scores(std::vector<float> scores, PoolKind kind, int32_t kernel) {
  ThreadPool pool(2);
  std::vector<float> out(scores.size(), 99);
  cpu_pool_scores(matrix(scores, 1), kind, kernel, matrix(out, 1), pool);
  return out;
}

TEST(PoolScoresTest, MaxPadsWithNothingAndAverageWithZeros) {
  EXPECT_THAT(pool_scores({-5, -1, -2, -7, -3}, PoolKind::kMax, 3), ElementsAre(-1, -1, -1, -2, -3));
  EXPECT_THAT(pool_scores({3, 6, 9, 12}, PoolKind::kAvg, 3), ElementsAre(3, 6, 9, 7));
  EXPECT_THAT(pool_scores({3, 6}, PoolKind::kAvg, 5), ElementsAre(9 / 5.0f, 9 / 5.0f));
  EXPECT_THAT(pool_scores({4, -6}, PoolKind::kMax, 7), ElementsAre(4, 4));
  EXPECT_THAT(pool_scores({4, -6}, PoolKind::kMax, (1 << 30) + 1), ElementsAre(4, 4));  // in no time
  EXPECT_THAT(pool_scores({3, 1, 2}, PoolKind::kMax, 1), ElementsAre(3, 1, 2));
  EXPECT_THAT(pool_scores({3, 1, 2}, PoolKind::kNone, 7), ElementsAre(3, 1, 2));
}

TEST(ReduceGroupsTest, ReducesEachGroupOfHeads) {
  ThreadPool pool(2);
  std::vector<float> sums = {1, 2, 3, -8, 5, 6, 7, 8, 0, 1, 2, 0};  // [6, 2]: groups of 3
  std::vector<float> out(4);
  const auto reduce = [&](GroupReduce kind) {
    cpu_reduce_groups(matrix(sums, 6), kind, matrix(out, 2), pool);
    return out;
  };
  EXPECT_THAT(reduce(GroupReduce::kSum), ElementsAre(9, 0, 9, 9));
  EXPECT_THAT(reduce(GroupReduce::kMean), ElementsAre(3, 0, 3, 3));
  EXPECT_THAT(reduce(GroupReduce::kMax), ElementsAre(5, 6, 7, 8));
}

}  // namespace
}  // namespace pkv
