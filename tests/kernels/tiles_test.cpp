// The tile instructions, where the CPU has them, and the model of them that tests use elsewhere: each by itself, and
// one against the other.
#define PKV_TILES_HEADER "tests/kernels/tile_model.h"
#include "kernels/cpu/tiles.h"

#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <type_traits>
#include <vector>

#include "gtest/gtest.h"

namespace pkv {
namespace {

constexpr float kLeast = std::numeric_limits<float>::min();  // normal number

uint16_t bf16(float x) { return static_cast<uint16_t>(std::bit_cast<uint32_t>(x) >> 16); }

struct Operands {
  std::vector<float> sums = std::vector<float>(kTileRows * kTileFloats);
  std::vector<float> a = std::vector<float>(kTileRows * kTileDepth);    // [row][input], all numbers of bfloat16
  std::vector<float> b = std::vector<float>(kTileDepth * kTileFloats);  // [input][column], likewise
};

// sums + a b, by instructions of `T` on the given tiles.
template <typename T, int kSum, int kA, int kB>
std::vector<float> multiply_add(const Operands& operands) {
  constexpr int64_t kBehind = 5;  // elements behind a row
  constexpr int64_t kStride = kTileFloats + kBehind;
  std::vector<uint16_t> a(kTileRows * 2 * kStride), b(kTileRows * 2 * kStride);
  for (int32_t row = 0; row < kTileRows; ++row) {
    for (int32_t k = 0; k < kTileDepth; ++k) a[row * 2 * kStride + k] = bf16(operands.a[row * kTileDepth + k]);
  }
  for (int32_t k = 0; k < kTileDepth; ++k) {
    for (int32_t column = 0; column < kTileFloats; ++column) {
      b[k / 2 * 2 * kStride + 2 * column + k % 2] = bf16(operands.b[k * kTileFloats + column]);
    }
  }
  std::vector<float> sums(kTileRows * kTileFloats);
  T::configure();
  T::template load<kSum>(operands.sums.data(), kTileFloats * 4);
  T::template load<kA>(a.data(), kStride * 4);
  T::template load<kB>(b.data(), kStride * 4);
  T::template multiply_add<kSum, kA, kB>();
  T::template store<kSum>(sums.data(), kTileFloats * 4);
  T::release();
  return sums;
}

template <typename T>
class TilesTest : public testing::Test {
 protected:
  void SetUp() override {
    if (std::is_same_v<T, HardwareTiles> && !request_amx_bf16()) GTEST_SKIP() << "this machine has no tiles";
  }
};
using ModelAndHardware = testing::Types<ModelTiles, HardwareTiles>;
TYPED_TEST_SUITE(TilesTest, ModelAndHardware);

// Whole numbers, so that no order of summation rounds.
TYPED_TEST(TilesTest, AddsTheProductOfRowsAndColumns) {
  Operands operands;
  for (int32_t i = 0; i < kTileRows * kTileDepth; ++i) {
    operands.a[i] = static_cast<float>(i % 251);
    operands.b[i] = static_cast<float>(i % 241) - 100;
  }
  std::vector<float> expected(kTileRows * kTileFloats);
  for (int32_t i = 0; i < kTileRows * kTileFloats; ++i) {
    expected[i] = operands.sums[i] = static_cast<float>(i);
    for (int32_t k = 0; k < kTileDepth; ++k) {
      expected[i] += operands.a[i / kTileFloats * kTileDepth + k] * operands.b[k * kTileFloats + i % kTileFloats];
    }
  }
  EXPECT_EQ((multiply_add<TypeParam, 0, 4, 6>(operands)), expected);
  EXPECT_EQ((multiply_add<TypeParam, 1, 4, 7>(operands)), expected);
  EXPECT_EQ((multiply_add<TypeParam, 2, 5, 6>(operands)), expected);
  EXPECT_EQ((multiply_add<TypeParam, 3, 5, 7>(operands)), expected);
}

TYPED_TEST(TilesTest, ZeroesATile) {
  std::vector<float> sums(kTileRows * kTileFloats, 1.0f);
  TypeParam::configure();
  TypeParam::template load<3>(sums.data(), kTileFloats * 4);
  TypeParam::template zero<3>();
  TypeParam::template store<3>(sums.data(), kTileFloats * 4);
  TypeParam::release();
  EXPECT_EQ(sums, std::vector<float>(kTileRows * kTileFloats));
}

TYPED_TEST(TilesTest, DenormalNumbersAreZeros) {
  Operands operands;
  const auto result = [&](float sum, float a, float b) {
    operands.sums[0] = sum, operands.a[0] = a, operands.b[0] = b;
    return multiply_add<TypeParam, 0, 4, 6>(operands)[0];
  };
  EXPECT_EQ(result(0, kLeast, 0.5f), 0) << "a result";
  EXPECT_EQ(result(0, kLeast, 1), kLeast);
  EXPECT_EQ(result(0, kLeast / 2, 0x1p100f), 0) << "an operand";
  EXPECT_EQ(result(0, 0x1p100f, kLeast / 2), 0) << "an operand";
  EXPECT_EQ(result(kLeast / 2, kLeast, 1), kLeast) << "a sum";
}

// Numbers of many magnitudes and both signs, so that every rounding shows: bit by bit the model is the instruction.
TEST(TileModelTest, RoundsAsTheInstructionDoes) {
  if (!request_amx_bf16()) GTEST_SKIP() << "this machine has no tiles";
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  const auto fill = [&](std::vector<float>& numbers) {
    for (float& x : numbers) x = normal(random) * std::exp2(8 * normal(random));
  };
  for (int32_t round = 0; round < 100; ++round) {
    Operands operands;
    fill(operands.sums);
    fill(operands.a);
    fill(operands.b);
    ASSERT_EQ((multiply_add<ModelTiles, 0, 4, 6>(operands)), (multiply_add<HardwareTiles, 0, 4, 6>(operands)));
  }
}

}  // namespace
}  // namespace pkv
