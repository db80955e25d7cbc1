// The words of tensor cores (kernels/cuda/matrix.cuh) mean what their comments say, and the simulator notices a copy
// that nobody waited for and rows of a matrix that share banks.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "tests/cuda/matrix_kernels.h"
#include "tests/cuda/sim_array.h"
#include "tests/cuda/wrapper_checks.h"

namespace pkv::test {
namespace {

using sim::Options;
using sim::Order;
using sim::SimStream;

const std::vector<Options> kOrders = {
    {.order = Order::kForward}, {.order = Order::kBackward}, {.order = Order::kShuffled}};

std::vector<uint16_t> numbered(size_t count) {
  std::vector<uint16_t> numbers(count);
  std::iota(numbers.begin(), numbers.end(), uint16_t{1});
  return numbers;
}

TEST(MatrixTest, WrappersDoWhatTheySay) {
  for (const Options& order : kOrders) {
    for (const WrapperCheck& check : wrapper_checks()) {
      SimStream stream(order);
      EXPECT_EQ(check.run(stream), "") << check.name;
      EXPECT_FALSE(stream.failed()) << check.name << ": " << stream.error();
    }
  }
}

TEST(MatrixTest, RowsOfAMatrixThatShareBanksAreNoticed) {
  SimStream stream(Options{});
  const SimArray<uint16_t> in(stream, numbered(4 * 64)), out(stream, std::vector<uint16_t>(4 * 64));
  transpose_loading(stream, in.data(), 64, out.data());
  stream.wait();
  EXPECT_TRUE(stream.failed());
  EXPECT_THAT(stream.error(), testing::HasSubstr("banks"));
}

// The planted fault: a group of copies that nobody waits for.
TEST(MatrixTest, ACopyThatNobodyWaitedForIsNoticed) {
  std::vector<float> from(3 * 32 * 4);
  std::iota(from.begin(), from.end(), 1.0f);
  for (const Options& order : kOrders) {
    SimStream stream(order);
    const SimArray<float> in(stream, from), out(stream, std::vector<float>(from.size(), -1.0f));
    copy_groups(stream, in.data(), /*there=*/true, /*waits=*/false, out.data());
    for (const float value : out.read()) EXPECT_TRUE(std::isnan(value));
  }
}

}  // namespace
}  // namespace pkv::test
