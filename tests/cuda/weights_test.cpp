// Weights on the device, beneath the Backend interface: decoded as the host decodes them, and products whose rows do
// not depend on each other.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/cuda/kernels.h"
#include "kernels/quant.h"
#include "tests/cuda/sim_array.h"
#include "tests/kernels/case_data.h"

namespace pkv::test {
namespace {

using sim::Options;
using sim::Order;
using sim::SimStream;

TEST(WeightsTest, AreDecodedToTheBitsOfTheHost) {
  constexpr int64_t kRows = 5, kCols = 1024;
  std::mt19937 rng(3);
  for (const QuantTraits& traits : quant_table()) {
    const std::vector<uint8_t> blocks = random_weight(rng, traits.type, kRows, kCols);
    std::vector<float> expected(kRows * kCols);
    traits.decode(blocks.data(), expected.data(), kRows * kCols);
    SimStream stream(Options{.order = Order::kShuffled, .seed = 5});
    const SimArray<uint8_t> on_device(stream, blocks);
    const SimArray<float> out(stream, std::vector<float>(expected.size() + 1, -7.0f));
    gpu::decode_weights(stream, traits.type, on_device.data(), kRows * kCols, out.data());
    const std::vector<float> decoded = out.read();
    ASSERT_FALSE(stream.failed()) << stream.error();
    EXPECT_EQ(std::memcmp(decoded.data(), expected.data(), expected.size() * sizeof(float)), 0) << traits.name;
    EXPECT_EQ(decoded.back(), -7.0f) << traits.name;
  }
}

TEST(WeightsTest, ARowOfAProductDoesNotDependOnTheOthers) {
  constexpr int64_t kRows = 37, kInputs = 100, kOutputs = 70;
  std::mt19937 rng(4);
  const Matrix x = random_matrix(rng, kRows, kInputs), w = random_matrix(rng, kOutputs, kInputs);
  SimStream stream(Options{.order = Order::kBackward});
  const SimArray<float> inputs(stream, x.values), weight(stream, w.values);
  const auto multiply = [&](int64_t first, int64_t rows) {
    const SimArray<float> out(stream, std::vector<float>(static_cast<size_t>(rows * kOutputs), 0.5f));
    gpu::linear_exact(stream, {inputs.data() + first * kInputs, DType::kF32, rows, kInputs, kInputs}, weight.data(),
                      true, {out.data(), DType::kF32, rows, kOutputs, kOutputs});
    return out.read();
  };
  const std::vector<float> together = multiply(0, kRows);
  for (int64_t row = 0; row < kRows; ++row) {
    const std::vector<float> alone = multiply(row, 1);
    EXPECT_TRUE(std::equal(alone.begin(), alone.end(), together.begin() + row * kOutputs)) << row;
    double expected = 0.5;
    for (int64_t i = 0; i < kInputs; ++i) expected += static_cast<double>(x.row(row)[i]) * w.row(3)[i];
    EXPECT_NEAR(alone[3], expected, 1e-4) << row;
  }
}

TEST(WeightsTest, PackedProductsAreThoseOfDecodedWeights) {
  constexpr int64_t kRows = 19, kInputs = 512, kOutputs = 70;
  std::mt19937 rng(6);
  const Matrix x = random_matrix(rng, kRows, kInputs);
  for (const QuantTraits& traits : quant_table()) {
    const std::vector<uint8_t> blocks = random_weight(rng, traits.type, kOutputs, kInputs);
    Matrix w(kOutputs, kInputs);
    traits.decode(blocks.data(), w.values.data(), kOutputs * kInputs);
    SimStream stream(Options{.order = Order::kShuffled, .seed = 8});
    const SimArray<float> inputs(stream, x.values);
    const SimArray<uint8_t> weight(stream, blocks);
    const auto multiply = [&](int64_t first, int64_t rows) {
      const SimArray<float> out(stream, std::vector<float>(static_cast<size_t>(rows * kOutputs), 0.5f));
      gpu::packed_gemm(stream, {inputs.data() + first * kInputs, DType::kF32, rows, kInputs, kInputs}, traits.type,
                       weight.data(), true, {out.data(), DType::kF32, rows, kOutputs, kOutputs});
      std::vector<float> result = out.read();
      EXPECT_FALSE(stream.failed()) << stream.error();
      return result;
    };
    const std::vector<float> together = multiply(0, kRows);
    for (int64_t row = 0; row < kRows; ++row) {
      for (int64_t n = 0; n < kOutputs; ++n) {
        double expected = 0.5, squares = 0;
        for (int64_t i = 0; i < kInputs; ++i) {
          const double product = static_cast<double>(x.row(row)[i]) * w.row(n)[i];
          expected += product;
          squares += product * product;
        }
        // Two factors, each off by 2^-8 of itself at most; the errors of products are independent.
        const double allowed = 6 * std::sqrt(squares * 2 / 3) * 0x1p-8;
        EXPECT_NEAR(together[static_cast<size_t>(row * kOutputs + n)], expected, allowed) << traits.name;
      }
    }
    for (const int64_t row : {int64_t{0}, int64_t{7}, kRows - 1}) {
      const std::vector<float> alone = multiply(row, 1);
      EXPECT_TRUE(std::equal(alone.begin(), alone.end(), together.begin() + row * kOutputs)) << traits.name;
    }
  }
}

}  // namespace
}  // namespace pkv::test
