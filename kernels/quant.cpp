// Scalar decoders of the GGUF weight formats, one function and one table row each, and the half-precision conversions.
// Blocks lie as in quant_blocks.h; their multi-byte fields are little-endian as on every machine we run on.
#include "kernels/quant.h"

#include <array>
#include <bit>
#include <cstring>

#include "kernels/check.h"
#include "kernels/quant_blocks.h"

namespace pkv {
namespace {

static_assert(std::endian::native == std::endian::little);

float read_half(HalfBytes bytes) { return half_to_float(bytes.bits()); }

// Runs `decode_block(block, out)` over all blocks of `count` weights.
template <typename Block, int32_t kWeights, typename DecodeBlock>
void for_each_block(const void* blocks, float* out, int64_t count, DecodeBlock decode_block) {
  PKV_CHECK(count % kWeights == 0, "weights to decode are not whole blocks");
  const auto* block = static_cast<const Block*>(blocks);
  for (int64_t i = 0; i < count; i += kWeights) decode_block(*block++, out + i);
}

void decode_f32(const void* blocks, float* out, int64_t count) {
  std::memcpy(out, blocks, static_cast<size_t>(count) * sizeof(float));
}

void decode_f16(const void* blocks, float* out, int64_t count) {
  for_each_block<HalfBytes, 1>(blocks, out, count, [](HalfBytes half, float* w) { *w = read_half(half); });
}

void decode_bf16(const void* blocks, float* out, int64_t count) {
  for_each_block<HalfBytes, 1>(blocks, out, count,
                               [](HalfBytes half, float* w) { *w = bfloat16_to_float(half.bits()); });
}

void decode_q4_0(const void* blocks, float* out, int64_t count) {
  for_each_block<BlockQ4_0, kBlockWeights>(blocks, out, count, [](const BlockQ4_0& block, float* w) {
    const float scale = read_half(block.scale);
    for (int j = 0; j < 16; ++j) {
      w[j] = scale * static_cast<float>((block.nibbles[j] & 15) - 8);
      w[j + 16] = scale * static_cast<float>((block.nibbles[j] >> 4) - 8);
    }
  });
}

void decode_q4_1(const void* blocks, float* out, int64_t count) {
  for_each_block<BlockQ4_1, kBlockWeights>(blocks, out, count, [](const BlockQ4_1& block, float* w) {
    const float scale = read_half(block.scale), minimum = read_half(block.minimum);
    for (int j = 0; j < 16; ++j) {
      w[j] = scale * static_cast<float>(block.nibbles[j] & 15) + minimum;
      w[j + 16] = scale * static_cast<float>(block.nibbles[j] >> 4) + minimum;
    }
  });
}

// The 5-bit integers of a Q5_0 or Q5_1 block, passed to `store(index, integer)`.
template <typename Block, typename Store>
void unpack_five_bits(const Block& block, Store store) {
  uint32_t fifth;
  std::memcpy(&fifth, block.fifth_bits, sizeof(fifth));
  for (int j = 0; j < 16; ++j) {
    store(j, static_cast<int>((block.nibbles[j] & 15) | ((fifth >> j & 1) << 4)));
    store(j + 16, static_cast<int>((block.nibbles[j] >> 4) | ((fifth >> (j + 16) & 1) << 4)));
  }
}

void decode_q5_0(const void* blocks, float* out, int64_t count) {
  for_each_block<BlockQ5_0, kBlockWeights>(blocks, out, count, [](const BlockQ5_0& block, float* w) {
    const float scale = read_half(block.scale);
    unpack_five_bits(block, [&](int j, int q) { w[j] = scale * static_cast<float>(q - 16); });
  });
}

void decode_q5_1(const void* blocks, float* out, int64_t count) {
  for_each_block<BlockQ5_1, kBlockWeights>(blocks, out, count, [](const BlockQ5_1& block, float* w) {
    const float scale = read_half(block.scale), minimum = read_half(block.minimum);
    unpack_five_bits(block, [&](int j, int q) { w[j] = scale * static_cast<float>(q) + minimum; });
  });
}

void decode_q8_0(const void* blocks, float* out, int64_t count) {
  for_each_block<BlockQ8_0, kBlockWeights>(blocks, out, count, [](const BlockQ8_0& block, float* w) {
    const float scale = read_half(block.scale);
    for (int j = 0; j < kBlockWeights; ++j) w[j] = scale * static_cast<float>(block.weights[j]);
  });
}

struct SubScale {
  float scale, minimum;
};

// Scale and minimum of sub-block b of 8.
template <typename Block>
SubScale sub_scale(const Block& block, int b) {
  const SubScaleBits bits = sub_scale_bits(block.sub_scales, b);
  return {read_half(block.scale) * static_cast<float>(bits.scale),
          read_half(block.minimum) * static_cast<float>(bits.minimum)};
}

void decode_q4_k(const void* blocks, float* out, int64_t count) {
  for_each_block<BlockQ4_K, kSuperBlockWeights>(blocks, out, count, [](const BlockQ4_K& block, float* w) {
    for (int b = 0; b < 8; ++b) {
      const auto [scale, minimum] = sub_scale(block, b);
      const uint8_t* nibbles = block.nibbles + b / 2 * 32;
      const int shift = b % 2 * 4;
      for (int j = 0; j < 32; ++j) w[b * 32 + j] = scale * static_cast<float>(nibbles[j] >> shift & 15) - minimum;
    }
  });
}

void decode_q5_k(const void* blocks, float* out, int64_t count) {
  for_each_block<BlockQ5_K, kSuperBlockWeights>(blocks, out, count, [](const BlockQ5_K& block, float* w) {
    for (int b = 0; b < 8; ++b) {
      const auto [scale, minimum] = sub_scale(block, b);
      const uint8_t* nibbles = block.nibbles + b / 2 * 32;
      const int shift = b % 2 * 4;
      for (int j = 0; j < 32; ++j) {
        const int q = (nibbles[j] >> shift & 15) | ((block.fifth_bits[j] >> b & 1) << 4);
        w[b * 32 + j] = scale * static_cast<float>(q) - minimum;
      }
    }
  });
}

void decode_q6_k(const void* blocks, float* out, int64_t count) {
  for_each_block<BlockQ6_K, kSuperBlockWeights>(blocks, out, count, [](const BlockQ6_K& block, float* w) {
    const float scale = read_half(block.scale);
    for (int run = 0; run < 8; ++run) {
      const int half = run / 4, r = run % 4;
      const uint8_t* low = block.low_bits + half * 64 + r % 2 * 32;
      const uint8_t* high = block.high_bits + half * 32;
      for (int j = 0; j < 32; ++j) {
        const int q = ((low[j] >> (r / 2 * 4) & 15) | ((high[j] >> (2 * r) & 3) << 4)) - 32;
        w[run * 32 + j] = scale * static_cast<float>(block.sub_scales[run * 2 + j / 16]) * static_cast<float>(q);
      }
    }
  });
}

// In the order of WeightType, so that quant_traits is an index.
constexpr std::array<QuantTraits, 11> kTable = {{
    {WeightType::kF32, "F32", 0, 1, 4, decode_f32},
    {WeightType::kF16, "F16", 1, 1, 2, decode_f16},
    {WeightType::kBF16, "BF16", 30, 1, 2, decode_bf16},
    {WeightType::kQ4_0, "Q4_0", 2, kBlockWeights, sizeof(BlockQ4_0), decode_q4_0},
    {WeightType::kQ4_1, "Q4_1", 3, kBlockWeights, sizeof(BlockQ4_1), decode_q4_1},
    {WeightType::kQ5_0, "Q5_0", 6, kBlockWeights, sizeof(BlockQ5_0), decode_q5_0},
    {WeightType::kQ5_1, "Q5_1", 7, kBlockWeights, sizeof(BlockQ5_1), decode_q5_1},
    {WeightType::kQ8_0, "Q8_0", 8, kBlockWeights, sizeof(BlockQ8_0), decode_q8_0},
    {WeightType::kQ4_K, "Q4_K", 12, kSuperBlockWeights, sizeof(BlockQ4_K), decode_q4_k},
    {WeightType::kQ5_K, "Q5_K", 13, kSuperBlockWeights, sizeof(BlockQ5_K), decode_q5_k},
    {WeightType::kQ6_K, "Q6_K", 14, kSuperBlockWeights, sizeof(BlockQ6_K), decode_q6_k},
}};

struct TypeName {
  uint32_t ggml_id;
  std::string_view name;
};

// Types a file may name and we do not read.
constexpr TypeName kOtherTypes[] = {
    {4, "Q4_2"},     {5, "Q4_3"},        {9, "Q8_1"},        {10, "Q2_K"},       {11, "Q3_K"},     {15, "Q8_K"},
    {16, "IQ2_XXS"}, {17, "IQ2_XS"},     {18, "IQ3_XXS"},    {19, "IQ1_S"},      {20, "IQ4_NL"},   {21, "IQ3_S"},
    {22, "IQ2_S"},   {23, "IQ4_XS"},     {24, "I8"},         {25, "I16"},        {26, "I32"},      {27, "I64"},
    {28, "F64"},     {29, "IQ1_M"},      {31, "Q4_0_4_4"},   {32, "Q4_0_4_8"},   {33, "Q4_0_8_8"}, {34, "TQ1_0"},
    {35, "TQ2_0"},   {36, "IQ4_NL_4_4"}, {37, "IQ4_NL_4_8"}, {38, "IQ4_NL_8_8"}, {39, "MXFP4"},    {40, "NVFP4"},
    {41, "Q1_0"},
};

}  // namespace

std::span<const QuantTraits> quant_table() { return kTable; }

const QuantTraits& quant_traits(WeightType type) { return kTable[static_cast<size_t>(type)]; }

const QuantTraits* find_quant_by_ggml_id(uint32_t ggml_id) {
  for (const QuantTraits& traits : kTable) {
    if (traits.ggml_id == ggml_id) return &traits;
  }
  return nullptr;
}

std::string_view ggml_type_name(uint32_t ggml_id) {
  if (const QuantTraits* traits = find_quant_by_ggml_id(ggml_id)) return traits->name;
  for (const TypeName& other : kOtherTypes) {
    if (other.ggml_id == ggml_id) return other.name;
  }
  return "unknown";
}

float half_to_float(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  const uint32_t exponent = half >> 10 & 31u;
  const uint32_t mantissa = half & 0x3ffu;
  if (exponent == 0) {  // zero or subnormal: mantissa * 2^-24, a normal float32
    return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(static_cast<float>(mantissa) * 0x1p-24f));
  }
  const uint32_t wide_exponent = exponent == 31 ? 255u : exponent + (127 - 15);
  return std::bit_cast<float>(sign | wide_exponent << 23 | mantissa << 13);
}

uint16_t float_to_half(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = bits >> 16 & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u | (magnitude >> 13 & 0x3ffu));  // quiet NaN
  if (magnitude >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);  // 65520 and more round to infinity
  if (magnitude <= 0x33000000u) return static_cast<uint16_t>(sign);  // 2^-25, half the least subnormal: to even 0
  // The significand, its leading one in bit 23, is shifted to the half's unit in the last place, rounding to even. A
  // carry out of the mantissa runs into the exponent field, which is right in both cases.
  const int32_t exponent = static_cast<int32_t>(magnitude >> 23) - 127;
  const bool subnormal = exponent < -14;
  const uint32_t significand = (magnitude & 0x7fffffu) | 0x800000u;
  const int32_t shift = subnormal ? -1 - exponent : 13;
  const uint32_t odd = significand >> shift & 1u;
  const uint32_t rounded = (significand + (1u << (shift - 1)) - 1 + odd) >> shift;
  const uint32_t base = subnormal ? 0u : static_cast<uint32_t>(exponent + 14) << 10;  // the leading one adds 1 << 10
  return static_cast<uint16_t>(sign | (base + rounded));
}

float bfloat16_to_float(uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }

uint16_t float_to_bfloat16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>(bits >> 16 | 0x40u);  // NaN stays NaN
  return static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

}  // namespace pkv
