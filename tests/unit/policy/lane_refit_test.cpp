// Refitted values against independent ones (tests/golden/make_refit_cases.py), however the work is divided.
#include "server/policy/lane_refit.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

namespace pkv {
namespace {

struct RefitCase {
  int32_t head_dim;
  std::vector<int32_t> unseen;
  std::vector<float> queries, outputs, keys, values, expected;
};
const RefitCase kCases[] = {
#include "tests/unit/policy/refit_cases.inc"
};

std::vector<float> refit(const RefitCase& one, int64_t most_work) {
  LaneRefit lane({.head_dim = one.head_dim,
                  .scale = 1.0f / std::sqrt(static_cast<float>(one.head_dim)),
                  .unseen = one.unseen,
                  .queries = one.queries,
                  .outputs = one.outputs,
                  .keys = one.keys},
                 one.values);
  while (!lane.done()) lane.run(most_work);
  return lane.values();
}

TEST(LaneRefit, EqualsIndependentValues) {
  for (const RefitCase& one : kCases) {
    const std::vector<float> values = refit(one, int64_t{1} << 40);
    EXPECT_THAT(values, testing::Pointwise(testing::FloatNear(2e-5f), one.expected)) << one.unseen.size() << " queries";
    EXPECT_NE(values, one.values);
  }
}

TEST(LaneRefit, DoesNotDependOnHowItIsDivided) {
  for (const RefitCase& one : kCases) EXPECT_EQ(refit(one, 1), refit(one, int64_t{1} << 40));
}

TEST(LaneRefit, ALaneThatGaveTheQueriesWhatTheyAskForKeepsItsValues) {
  RefitCase one = kCases[0];
  // Of equal values every attention is that value.
  const auto d = static_cast<size_t>(one.head_dim);
  for (std::vector<float>* rows : {&one.values, &one.outputs}) {
    for (size_t i = 0; i < rows->size(); ++i) (*rows)[i] = static_cast<float>(i % d);
  }
  EXPECT_THAT(refit(one, 1), testing::Pointwise(testing::FloatNear(1e-5f), one.values));
}

}  // namespace
}  // namespace pkv
