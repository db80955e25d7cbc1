// Weights of GGUF blocks one by one, with the roundings of the host's decoders (kernels/quant.cpp): the same to the
// bit.
#pragma once

#include <cstdint>
#include <type_traits>

#include "kernels/cuda/gpu.h"
#include "kernels/quant.h"
#include "kernels/quant_blocks.h"

namespace pkv::gpu {

__device__ inline float read_half(HalfBytes half) { return half_to_float(half.bits()); }

// scale * q + minimum, rounded twice.
__device__ inline float scaled(float scale, int32_t q, float minimum) {
  return __fadd_rn(__fmul_rn(scale, static_cast<float>(q)), minimum);
}

// Weight i of a block.
__device__ inline int32_t nibble(const uint8_t (&nibbles)[16], int32_t i) {
  return i < 16 ? nibbles[i] & 15 : nibbles[i - 16] >> 4;
}
__device__ inline int32_t fifth_bit(const uint8_t (&bits)[4], int32_t i) { return bits[i / 8] >> i % 8 & 1; }

__device__ inline float weight_of(float weight, int32_t) { return weight; }
__device__ inline float weight_of(const BlockQ4_0& block, int32_t i) {
  return read_half(block.scale) * static_cast<float>(nibble(block.nibbles, i) - 8);
}
__device__ inline float weight_of(const BlockQ4_1& block, int32_t i) {
  return scaled(read_half(block.scale), nibble(block.nibbles, i), read_half(block.minimum));
}
__device__ inline float weight_of(const BlockQ5_0& block, int32_t i) {
  const int32_t q = nibble(block.nibbles, i) | fifth_bit(block.fifth_bits, i) << 4;
  return read_half(block.scale) * static_cast<float>(q - 16);
}
__device__ inline float weight_of(const BlockQ5_1& block, int32_t i) {
  const int32_t q = nibble(block.nibbles, i) | fifth_bit(block.fifth_bits, i) << 4;
  return scaled(read_half(block.scale), q, read_half(block.minimum));
}
__device__ inline float weight_of(const BlockQ8_0& block, int32_t i) {
  return read_half(block.scale) * static_cast<float>(block.weights[i]);
}

// Of a block with eight sub-blocks of 32 weights.
template <typename Block>
__device__ float in_sub_block(const Block& block, int32_t sub, int32_t q) {
  const SubScaleBits bits = sub_scale_bits(block.sub_scales, sub);
  return scaled(__fmul_rn(read_half(block.scale), static_cast<float>(bits.scale)), q,
                -__fmul_rn(read_half(block.minimum), static_cast<float>(bits.minimum)));
}
__device__ inline int32_t sub_block_nibble(const uint8_t (&nibbles)[128], int32_t i) {
  const int32_t sub = i / 32;
  return nibbles[sub / 2 * 32 + i % 32] >> sub % 2 * 4 & 15;
}
__device__ inline float weight_of(const BlockQ4_K& block, int32_t i) {
  return in_sub_block(block, i / 32, sub_block_nibble(block.nibbles, i));
}
__device__ inline float weight_of(const BlockQ5_K& block, int32_t i) {
  const int32_t fifth = block.fifth_bits[i % 32] >> i / 32 & 1;
  return in_sub_block(block, i / 32, sub_block_nibble(block.nibbles, i) | fifth << 4);
}
__device__ inline float weight_of(const BlockQ6_K& block, int32_t i) {
  const int32_t half = i / 128, run = i / 32 % 4, j = i % 32;
  const int32_t low = block.low_bits[half * 64 + run % 2 * 32 + j] >> run / 2 * 4 & 15;
  const int32_t high = block.high_bits[half * 32 + j] >> 2 * run & 3;
  return read_half(block.scale) * static_cast<float>(block.sub_scales[i / 16]) *
         static_cast<float>((low | high << 4) - 32);
}

// 16-bit weights, a block each.
struct HalfWeight {
  HalfBytes half;
};
struct BFloat16Weight {
  HalfBytes half;
};
__device__ inline float weight_of(const HalfWeight& block, int32_t) { return read_half(block.half); }
__device__ inline float weight_of(const BFloat16Weight& block, int32_t) {
  return __uint_as_float(static_cast<uint32_t>(block.half.bits()) << 16);
}

// visit(std::type_identity<Block>(), std::integral_constant<int32_t, weights of a block>()) of a format.
template <typename Visit>
void with_weight_blocks(WeightType type, const Visit& visit) {
  using One = std::integral_constant<int32_t, 1>;
  using Simple = std::integral_constant<int32_t, kBlockWeights>;
  using Super = std::integral_constant<int32_t, kSuperBlockWeights>;
  switch (type) {
    case WeightType::kF32:
      return visit(std::type_identity<float>(), One());
    case WeightType::kF16:
      return visit(std::type_identity<HalfWeight>(), One());
    case WeightType::kBF16:
      return visit(std::type_identity<BFloat16Weight>(), One());
    case WeightType::kQ4_0:
      return visit(std::type_identity<BlockQ4_0>(), Simple());
    case WeightType::kQ4_1:
      return visit(std::type_identity<BlockQ4_1>(), Simple());
    case WeightType::kQ5_0:
      return visit(std::type_identity<BlockQ5_0>(), Simple());
    case WeightType::kQ5_1:
      return visit(std::type_identity<BlockQ5_1>(), Simple());
    case WeightType::kQ8_0:
      return visit(std::type_identity<BlockQ8_0>(), Simple());
    case WeightType::kQ4_K:
      return visit(std::type_identity<BlockQ4_K>(), Super());
    case WeightType::kQ5_K:
      return visit(std::type_identity<BlockQ5_K>(), Super());
    case WeightType::kQ6_K:
      return visit(std::type_identity<BlockQ6_K>(), Super());
  }
}

}  // namespace pkv::gpu
