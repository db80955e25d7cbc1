// The list of operation cases itself: a wrong result is noticed, and no two cases have one name.
#include "tests/kernels/operation_cases.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "kernels/reference/reference_backend.h"

namespace pkv {
namespace {

// The comparison itself can fail: a reference result that is slightly wrong anywhere is noticed.
TEST(OperationCasesTest, ComparisonNoticesAWrongValue) {
  const std::unique_ptr<Backend> reference = make_reference_backend();
  const OperationCases cases = operation_cases();
  for (const auto& operation : cases) {
    if (operation->name().find("8000") != std::string::npos || operation->name().find("256x") != std::string::npos)
      continue;
    const std::unique_ptr<PreparedCase> prepared = operation->prepare(*reference);
    prepared->run();
    const Outputs expected = prepared->outputs();
    const Tolerances tolerances = operation->tolerances(expected, Accuracy::kDefault);
    EXPECT_EQ(operation->difference(expected, expected, tolerances), "") << operation->name();
    for (size_t i = 0; i < expected.size(); ++i) {
      Outputs wrong = expected;
      if (!wrong[i].floats.empty()) {
        float& value = wrong[i].floats[wrong[i].floats.size() / 2];
        value += 0.5f + std::abs(value);
      } else if (!wrong[i].exact.empty()) {
        wrong[i].exact.back() += 100000;
      } else {
        continue;
      }
      EXPECT_NE(operation->difference(expected, wrong, tolerances), "") << operation->name() << " " << expected[i].name;
    }
  }
}

TEST(OperationCasesTest, NamesAreUnique) {
  const OperationCases cases = operation_cases();
  std::vector<std::string> names;
  for (const auto& operation : cases) names.push_back(operation->name());
  std::sort(names.begin(), names.end());
  const auto twice = std::adjacent_find(names.begin(), names.end());
  EXPECT_TRUE(twice == names.end()) << *twice;
}

}  // namespace
}  // namespace pkv
