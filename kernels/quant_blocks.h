// The blocks of the GGUF weight formats as they lie in a file (the ggml definitions). Multi-byte fields are
// little-endian. The structs hold bytes only, so they have alignment 1 as blocks in a file have. Host and device code
// share them.
#pragma once

#include <cstdint>

#include "kernels/tensor.h"

namespace pkv {

constexpr int32_t kBlockWeights = 32;        // weights of a simple block
constexpr int32_t kSuperBlockWeights = 256;  // weights of a K-quant block

struct HalfBytes {
  uint8_t low, high;

  PKV_HOST_DEVICE constexpr uint16_t bits() const { return static_cast<uint16_t>(low | high << 8); }
};

struct BlockQ4_0 {
  HalfBytes scale;
  uint8_t nibbles[16];  // low nibbles: weights 0..15, high nibbles: 16..31
};
struct BlockQ4_1 {
  HalfBytes scale, minimum;
  uint8_t nibbles[16];
};
struct BlockQ5_0 {
  HalfBytes scale;
  uint8_t fifth_bits[4];  // bit j of the 32-bit word is the fifth bit of weight j
  uint8_t nibbles[16];
};
struct BlockQ5_1 {
  HalfBytes scale, minimum;
  uint8_t fifth_bits[4];
  uint8_t nibbles[16];
};
struct BlockQ8_0 {
  HalfBytes scale;
  int8_t weights[32];
};
struct BlockQ4_K {
  HalfBytes scale, minimum;  // of the 6-bit sub-block scales and minima
  uint8_t sub_scales[12];    // 8 scales and 8 minima of 6 bits, see sub_scale
  uint8_t nibbles[128];      // 32 bytes for every two sub-blocks: the first in the low nibbles, the second in the high
};
struct BlockQ5_K {
  HalfBytes scale, minimum;
  uint8_t sub_scales[12];
  uint8_t fifth_bits[32];  // bit b of byte j: weight j of sub-block b
  uint8_t nibbles[128];
};
// Each half of 128 weights has 64 bytes of low bits, 32 bytes of high bits and 8 sub-scales. Its 32-weight runs r =
// 0..3 take the nibbles low-first from bytes 0..31, 32..63 and then the high nibbles of the same, and bits 2r, 2r+1 of
// the high bytes.
struct BlockQ6_K {
  uint8_t low_bits[128];
  uint8_t high_bits[64];
  int8_t sub_scales[16];  // of 16 weights each
  HalfBytes scale;
};
static_assert(sizeof(BlockQ4_0) == 18 && sizeof(BlockQ4_1) == 20 && sizeof(BlockQ5_0) == 22 && sizeof(BlockQ5_1) == 24);
static_assert(sizeof(BlockQ8_0) == 34 && sizeof(BlockQ4_K) == 144 && sizeof(BlockQ5_K) == 176 &&
              sizeof(BlockQ6_K) == 210);

// The 6-bit integers of sub-block b of 8. The first four lie in the low six bits of bytes 0..3 (scales) and 4..7
// (minima); the last four have their low nibbles in bytes 8..11 (scale low, minimum high) and their upper two bits on
// top of bytes 0..7.
struct SubScaleBits {
  int scale;
  int minimum;
};
PKV_HOST_DEVICE constexpr SubScaleBits sub_scale_bits(const uint8_t (&s)[12], int b) {
  return {b < 4 ? s[b] & 63 : (s[b + 4] & 15) | (s[b - 4] >> 6 << 4),
          b < 4 ? s[b + 4] & 63 : (s[b + 4] >> 4) | (s[b] >> 6 << 4)};
}

}  // namespace pkv
