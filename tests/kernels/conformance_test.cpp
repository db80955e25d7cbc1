// Runs every operation case on every backend and mode this machine offers and compares with the reference; the same
// case with other numbers of threads must give the same bits.
#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <cstdio>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "kernels/reference/reference_backend.h"
#include "tests/kernels/backends_under_test.h"
#include "tests/kernels/operation_cases.h"

namespace pkv {
namespace {

const OperationCases& all_cases() {
  static const OperationCases cases = operation_cases();
  return cases;
}

class ConformanceTest : public testing::TestWithParam<size_t> {
 protected:
  static void SetUpTestSuite() { backends_ = new std::vector<BackendUnderTest>(backends_under_test({1, 2})); }
  static void TearDownTestSuite() {
    delete backends_;
    backends_ = nullptr;
  }
  static std::vector<BackendUnderTest>* backends_;
};

std::vector<BackendUnderTest>* ConformanceTest::backends_ = nullptr;

bool same_bits(const Outputs& a, const Outputs& b) {
  for (size_t i = 0; i < a.size(); ++i) {
    if (a[i].exact != b[i].exact || a[i].floats.size() != b[i].floats.size()) return false;
    const size_t bytes = a[i].floats.size() * sizeof(float);  // 0 of integers, and then there is nothing to point to
    if (bytes > 0 && std::memcmp(a[i].floats.data(), b[i].floats.data(), bytes) != 0) return false;
  }
  return true;
}

TEST_P(ConformanceTest, AgreesWithReference) {
  const OperationCase& operation = *all_cases()[GetParam()];
  SCOPED_TRACE(operation.name());
  ASSERT_FALSE(backends_->empty());
  const std::unique_ptr<Backend> reference = make_reference_backend();
  const std::unique_ptr<PreparedCase> prepared = operation.prepare(*reference);
  ASSERT_NE(prepared, nullptr);
  prepared->run();
  const Outputs expected = prepared->outputs();
  const Tolerances exact = operation.tolerances(expected, Accuracy::kExact);
  const Tolerances rounded = operation.tolerances(expected, Accuracy::kDefault);
  const BackendUnderTest* first_of_path = nullptr;  // the same path and mode with the first number of threads
  Outputs first_outputs;
  for (const BackendUnderTest& tested : *backends_) {
    if (!tested.is_for(operation.name()) || !operation.runs_on(*tested.backend)) continue;
    const std::unique_ptr<PreparedCase> here = operation.prepare(*tested.backend);
    ASSERT_NE(here, nullptr) << tested.name;
    here->run();
    Outputs actual = here->outputs();
    ASSERT_TRUE(tested.backend->status().ok()) << tested.name << ": " << tested.backend->status();
    EXPECT_EQ(operation.difference(expected, actual,
                                   operation.accuracy(tested.options) == Accuracy::kExact ? exact : rounded),
              "")
        << tested.name;
    if (first_of_path != nullptr && tested.same_path(*first_of_path)) {
      EXPECT_TRUE(same_bits(first_outputs, actual)) << tested.name << " differs from " << first_of_path->name;
    } else {
      first_of_path = &tested;
      first_outputs = std::move(actual);
    }
  }
}

std::string test_name(size_t index) {
  std::string name = all_cases()[index]->name();
  std::replace_if(
      name.begin(), name.end(), [](unsigned char c) { return std::isalnum(c) == 0; }, '_');
  return absl::StrCat(name, "_", index);
}

INSTANTIATE_TEST_SUITE_P(Cases, ConformanceTest, testing::Range<size_t>(0, all_cases().size()),
                         [](const auto& test) { return test_name(test.param); });

}  // namespace
}  // namespace pkv
