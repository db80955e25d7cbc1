// What a class lists is what it takes and what it gets.
#include "kernels/tensor_set.h"

#include <gtest/gtest.h>

#include "kernels/reference/reference_backend.h"
#include "tests/support/failing_backend.h"
#include "tests/support/metered_backend.h"

namespace pkv {
namespace {

struct Scratch {
  Tensor scores;  // [2, 3]
  Tensor kept;    // [5, 1] i32
  Tensor none;    // [0, 7]
};

const TensorSet<Scratch> kTensors = {
    {&Scratch::scores, 2, 3}, {&Scratch::kept, 5, 1, DType::kI32}, {&Scratch::none, 0, 7}};

TEST(TensorSetTest, AllocatesWhatItSays) {
  test::MeteredBackend backend(make_reference_backend());
  Scratch scratch;
  ASSERT_TRUE(kTensors.allocate(backend, scratch).ok());
  EXPECT_EQ(kTensors.bytes(), 4u * (6 + 5));
  EXPECT_EQ(static_cast<int64_t>(kTensors.bytes()), backend.live());
  EXPECT_EQ(scratch.scores.view().rows, 2);
  EXPECT_EQ(scratch.scores.view().cols, 3);
  EXPECT_EQ(scratch.kept.view().dtype, DType::kI32);
  EXPECT_FALSE(scratch.none);
}

TEST(TensorSetTest, HandsOnWhatTheBackendSays) {
  test::FailingBackend backend(make_reference_backend());
  backend.fail_soon();
  backend.sync();
  Scratch scratch;
  EXPECT_EQ(kTensors.allocate(backend, scratch), test::FailingBackend::failure());
}

}  // namespace
}  // namespace pkv
