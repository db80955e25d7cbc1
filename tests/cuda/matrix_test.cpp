// The words of tensor cores (kernels/cuda/matrix.cuh) mean what their comments say, and the simulator notices a copy
// that nobody waited for and rows of a matrix that share banks.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <random>

#include "kernels/quant.h"
#include "tests/cuda/matrix_kernels.h"
#include "tests/cuda/sim_array.h"

namespace pkv::test {
namespace {

using sim::Options;
using sim::Order;
using sim::SimStream;

const std::vector<Options> kOrders = {
    {.order = Order::kForward}, {.order = Order::kBackward}, {.order = Order::kShuffled}};

std::vector<uint16_t> random_halves(std::mt19937& rng, size_t count) {
  std::normal_distribution<float> normal;
  std::vector<uint16_t> halves(count);
  for (uint16_t& half : halves) half = float_to_half(normal(rng));
  return halves;
}

std::vector<uint16_t> numbered(size_t count) {
  std::vector<uint16_t> numbers(count);
  std::iota(numbers.begin(), numbers.end(), uint16_t{1});
  return numbers;
}

TEST(MatrixTest, MultipliesHalves) {
  std::mt19937 rng(1);
  const std::vector<uint16_t> a = random_halves(rng, 16 * 16), b = random_halves(rng, 16 * 8);
  for (const Options& order : kOrders) {
    SimStream stream(order);
    const SimArray<uint16_t> left(stream, a), right(stream, b);
    const SimArray<float> sums(stream, std::vector<float>(16 * 8, 0.25f));
    multiply_halves(stream, left.data(), right.data(), sums.data());
    const std::vector<float> c = sums.read();
    ASSERT_FALSE(stream.failed()) << stream.error();
    for (size_t row = 0; row < 16; ++row) {
      for (size_t column = 0; column < 8; ++column) {
        double expected = 0.25;
        for (size_t k = 0; k < 16; ++k) {
          expected += static_cast<double>(half_to_float(a[row * 16 + k])) * half_to_float(b[k * 8 + column]);
        }
        EXPECT_NEAR(c[row * 8 + column], expected, 1e-6 * (1 + std::abs(expected)));
      }
    }
  }
}

TEST(MatrixTest, Transposes) {
  const std::vector<uint16_t> from = numbered(4 * 64);
  for (const Options& order : kOrders) {
    SimStream stream(order);
    const SimArray<uint16_t> in(stream, from), loaded(stream, std::vector<uint16_t>(4 * 64)),
        moved(stream, std::vector<uint16_t>(64));
    transpose_loading(stream, in.data(), 8, loaded.data());
    transpose_moving(stream, in.data(), moved.data());
    const std::vector<uint16_t> four = loaded.read(), one = moved.read();
    ASSERT_FALSE(stream.failed()) << stream.error();
    for (size_t m = 0; m < 4; ++m) {
      for (size_t i = 0; i < 64; ++i) EXPECT_EQ(four[m * 64 + i], from[m * 64 + i % 8 * 8 + i / 8]) << m;
    }
    for (size_t i = 0; i < 64; ++i) EXPECT_EQ(one[i], from[i % 8 * 8 + i / 8]);
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

TEST(MatrixTest, CopiesAreThereOnceTheyAreWaitedFor) {
  std::vector<float> from(3 * 32 * 4);
  std::iota(from.begin(), from.end(), 1.0f);
  for (const Options& order : kOrders) {
    SimStream stream(order);
    const SimArray<float> in(stream, from);
    const auto copied = [&](bool there, bool waits) {
      const SimArray<float> out(stream, std::vector<float>(from.size(), -1.0f));
      copy_groups(stream, in.data(), there, waits, out.data());
      std::vector<float> got = out.read();
      EXPECT_FALSE(stream.failed()) << stream.error();
      return got;
    };
    EXPECT_EQ(copied(true, true), from);
    EXPECT_EQ(copied(false, true), std::vector<float>(from.size(), 0.0f));
    for (const float value : copied(true, false)) EXPECT_TRUE(std::isnan(value));
  }
}

}  // namespace
}  // namespace pkv::test
