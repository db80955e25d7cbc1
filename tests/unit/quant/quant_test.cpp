// The weight decoders against blocks decoded by an independent implementation (quant_cases.inc) and by hand, and the
// half conversions against the definition of binary16 for every value.
#include "kernels/quant.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

namespace pkv {
namespace {

struct QuantCase {
  std::string name;
  std::vector<uint8_t> blocks;
  std::vector<uint32_t> expected;  // float32 bit patterns
};

const std::vector<QuantCase>& quant_cases() {
  static const std::vector<QuantCase> cases = {
#include "tests/unit/quant/quant_cases.inc"
  };
  return cases;
}

const QuantTraits* find_by_name(std::string_view name) {
  for (const QuantTraits& traits : quant_table()) {
    if (traits.name == name) return &traits;
  }
  return nullptr;
}

class DecodeTest : public testing::TestWithParam<size_t> {};

TEST_P(DecodeTest, EqualsIndependentDecoder) {
  const QuantCase& test_case = quant_cases()[GetParam()];
  const QuantTraits* traits = find_by_name(test_case.name);
  ASSERT_NE(traits, nullptr);
  const auto count = static_cast<int64_t>(test_case.expected.size());
  ASSERT_EQ(count / traits->block_size * traits->block_bytes, static_cast<int64_t>(test_case.blocks.size()));
  // One element more than asked for, to see that nothing behind the end is written; and a source address that is odd.
  std::vector<uint8_t> shifted(test_case.blocks.size() + 1);
  std::copy(test_case.blocks.begin(), test_case.blocks.end(), shifted.begin() + 1);
  std::vector<float> decoded(test_case.expected.size() + 1, 12345.0f);
  traits->decode(shifted.data() + 1, decoded.data(), count);
  EXPECT_EQ(decoded.back(), 12345.0f);
  for (int64_t i = 0; i < count; ++i) {
    // The same float32 operations in the same order, so equal.
    ASSERT_EQ(decoded[i], std::bit_cast<float>(test_case.expected[i])) << test_case.name << " weight " << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, DecodeTest, testing::Range<size_t>(0, quant_cases().size()),
                         [](const auto& test) { return quant_cases()[test.param].name; });

TEST(QuantTest, EveryFormatHasCases) {
  for (const QuantTraits& traits : quant_table()) {
    if (traits.type == WeightType::kF32) continue;
    bool found = false;
    for (const QuantCase& test_case : quant_cases()) found |= test_case.name == traits.name;
    EXPECT_TRUE(found) << traits.name;
  }
}

// Worked by hand from the format's definition.
TEST(QuantTest, Q4_1BlockByHand) {
  uint8_t block[20] = {0x00, 0x38, 0x00, 0xc0};  // scale 0.5, minimum -2
  for (int j = 0; j < 16; ++j) block[4 + j] = static_cast<uint8_t>(j | (15 - j) << 4);
  float weights[32];
  quant_traits(WeightType::kQ4_1).decode(block, weights, 32);
  for (int j = 0; j < 16; ++j) {
    EXPECT_EQ(weights[j], 0.5f * static_cast<float>(j) - 2.0f);
    EXPECT_EQ(weights[j + 16], 0.5f * static_cast<float>(15 - j) - 2.0f);
  }
}

TEST(QuantTest, F32IsCopied) {
  const float source[3] = {1.5f, -0.0f, 3e-42f};
  float weights[3];
  quant_traits(WeightType::kF32).decode(source, weights, 3);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(std::bit_cast<uint32_t>(weights[i]), std::bit_cast<uint32_t>(source[i]));
}

TEST(QuantTest, TableIsIndexedByType) {
  ASSERT_EQ(quant_table().size(), 11u);
  for (const QuantTraits& traits : quant_table()) {
    EXPECT_EQ(&quant_traits(traits.type), &traits);
    EXPECT_EQ(find_quant_by_ggml_id(traits.ggml_id), &traits);
    EXPECT_EQ(ggml_type_name(traits.ggml_id), traits.name);
  }
}

TEST(QuantTest, NamesTypesWeDoNotRead) {
  EXPECT_EQ(ggml_type_name(10), "Q2_K");
  EXPECT_EQ(ggml_type_name(23), "IQ4_XS");
  EXPECT_EQ(ggml_type_name(39), "MXFP4");
  EXPECT_EQ(find_quant_by_ggml_id(10), nullptr);
  EXPECT_EQ(ggml_type_name(12345), "unknown");
  EXPECT_EQ(find_quant_by_ggml_id(12345), nullptr);
}

// binary16 by definition: (-1)^s 2^(e-15) (1 + m/1024), subnormals 2^-14 m/1024.
double half_by_definition(uint16_t half) {
  const int exponent = half >> 10 & 31, mantissa = half & 1023;
  const double magnitude = exponent == 31  ? std::numeric_limits<double>::infinity()
                           : exponent == 0 ? std::ldexp(mantissa, -24)
                                           : std::ldexp(1024 + mantissa, exponent - 25);
  return half & 0x8000 ? -magnitude : magnitude;
}

bool is_half_nan(uint16_t half) { return (half & 0x7fff) > 0x7c00; }

TEST(HalfTest, EveryHalfConvertsExactlyAndBack) {
  for (uint32_t i = 0; i <= 0xffff; ++i) {
    const auto half = static_cast<uint16_t>(i);
    const float value = half_to_float(half);
    if (is_half_nan(half)) {
      EXPECT_TRUE(std::isnan(value));
      EXPECT_TRUE(is_half_nan(float_to_half(value)));
      continue;
    }
    ASSERT_EQ(static_cast<double>(value), half_by_definition(half)) << half;
    ASSERT_EQ(std::signbit(value), (half & 0x8000) != 0) << half;
    ASSERT_EQ(float_to_half(value), half);
  }
}

// Between any two neighbouring halves: below the middle goes down, above goes up, the middle to the even one.
TEST(HalfTest, RoundsToNearestEven) {
  for (uint16_t low = 0; low < 0x7c00; ++low) {
    const auto high = static_cast<uint16_t>(low + 1);
    // The step above the largest half is as wide as the one below it, so the middle to infinity is 65520.
    const double top = high == 0x7c00 ? 65536.0 : half_by_definition(high);
    const auto middle = static_cast<float>((half_by_definition(low) + top) / 2);  // exact in float32
    const float below = std::nextafter(middle, 0.0f), above = std::nextafter(middle, 1e30f);
    ASSERT_EQ(float_to_half(below), low) << low;
    ASSERT_EQ(float_to_half(above), high) << low;
    ASSERT_EQ(float_to_half(middle), low % 2 == 0 ? low : high) << low;
    ASSERT_EQ(float_to_half(-above), high | 0x8000) << low;
    ASSERT_EQ(float_to_half(-middle), (low % 2 == 0 ? low : high) | 0x8000) << low;
  }
}

TEST(HalfTest, FloatsOutsideTheRange) {
  EXPECT_EQ(float_to_half(std::numeric_limits<float>::infinity()), 0x7c00);
  EXPECT_EQ(float_to_half(-std::numeric_limits<float>::infinity()), 0xfc00);
  EXPECT_EQ(float_to_half(1e30f), 0x7c00);
  EXPECT_EQ(float_to_half(1e-30f), 0);
  EXPECT_EQ(float_to_half(-1e-45f), 0x8000);
  EXPECT_TRUE(is_half_nan(float_to_half(std::bit_cast<float>(0x7f800001u))));  // payload only in the lowest bit
}

TEST(HalfTest, Bfloat16IsTheUpperHalfOfFloat32) {
  EXPECT_EQ(bfloat16_to_float(0x3fc0), 1.5f);
  EXPECT_EQ(bfloat16_to_float(0xc040), -3.0f);
  EXPECT_TRUE(std::isnan(bfloat16_to_float(0x7fc0)));
}

}  // namespace
}  // namespace pkv
