// A backend behind a forwarder gives what it gives alone: no operation is lost, no argument exchanged.
#include <gtest/gtest.h>

#include "kernels/reference/reference_backend.h"
#include "tests/kernels/operation_cases.h"
#include "tests/support/counting_backend.h"

namespace pkv {
namespace {

TEST(ForwardingBackendTest, EveryOperationGivesWhatItGivesAlone) {
  const std::unique_ptr<Backend> alone = make_reference_backend();
  test::CountingBackend counting(make_reference_backend());
  for (const auto& operation : operation_cases()) {
    if (operation->name().find("8000") != std::string::npos || operation->name().find("256x") != std::string::npos)
      continue;
    const std::unique_ptr<PreparedCase> expected = operation->prepare(*alone), actual = operation->prepare(counting);
    counting.reset();
    expected->run();
    actual->run();
    EXPECT_GT(counting.total(), 0) << operation->name();
    const Outputs want = expected->outputs(), got = actual->outputs();
    ASSERT_EQ(want.size(), got.size()) << operation->name();
    for (size_t i = 0; i < want.size(); ++i) {
      EXPECT_EQ(want[i].floats, got[i].floats) << operation->name();
      EXPECT_EQ(want[i].exact, got[i].exact) << operation->name();
    }
  }
}

TEST(CountingBackendTest, CountsByName) {
  test::CountingBackend counting(make_reference_backend());
  const Tensor a = *counting.allocate(1, 4, DType::kF32), b = *counting.allocate(1, 4, DType::kF32);
  const float values[4] = {1, 2, 3, 4};
  counting.upload(a.view(), values);
  counting.copy(b.view(), a.view());
  counting.copy(a.view(), b.view());
  EXPECT_EQ(counting.counts(), (test::CountingBackend::Counts{{"copy", 2}, {"upload", 1}}));
  EXPECT_EQ(counting.count("copy"), 2);
  EXPECT_EQ(counting.count("attend"), 0);
  EXPECT_EQ(counting.total(), 3);
  counting.reset();
  EXPECT_EQ(counting.total(), 0);
}

}  // namespace
}  // namespace pkv
