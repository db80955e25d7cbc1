// 8-bit dot products with AVX512_VNNI: unsigned weight codes times signed activation codes by vpdpbusd, 16 outputs at a
// time.
#include <immintrin.h>

#include "kernels/cpu/linear/int8_panels.h"

namespace pkv {
namespace {

typedef int32_t __attribute__((may_alias)) Quad;  // four codes of activations

// sums += four products of each element's unsigned bytes with the signed bytes at `x`, the same four for all. Written
// in assembly because g++ 12 spills the accumulators of the intrinsic.
inline __m512i dot_quad(__m512i sums, __m512i codes, const int8_t* x) {
  __asm__("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(sums) : "v"(codes), "m"(*reinterpret_cast<const Quad*>(x)));
  return sums;
}

struct VnniDots {
  template <int kRows>
  static void correct(const GroupRows& rows, __m512i (&dots)[kRows][kParts]) {
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) dots[r][0] = _mm512_set1_epi32(rows.corrections[r * rows.correction_stride]);
  }

  template <int kRows>
  static void nibbles(const uint8_t* codes, const GroupRows& rows, __m512i (&dots)[kRows][kParts]) {
    correct<kRows>(rows, dots);
    const __m512i nibble = _mm512_set1_epi8(15);
    for (int j = 0; j < 4; ++j) {
      const __m512i packed = I::load(codes + j * 64);
      const __m512i low = _mm512_and_si512(packed, nibble);
      const __m512i high = _mm512_and_si512(_mm512_srli_epi16(packed, 4), nibble);
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        const int8_t* x = rows.codes + r * rows.stride + 8 * j;
        dots[r][0] = dot_quad(dots[r][0], low, x);
        dots[r][0] = dot_quad(dots[r][0], high, x + 4);
      }
    }
  }

  template <int kRows>
  static void bytes(const uint8_t* codes, const PackedView& weight, const GroupRows& rows,
                    __m512i (&dots)[kRows][kParts]) {
    correct<kRows>(rows, dots);
    for (int j = 0; j < weight.group / 4; ++j) {
      const __m512i quad = I::load(codes + j * 64);
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) dots[r][0] = dot_quad(dots[r][0], quad, rows.codes + r * rows.stride + 4 * j);
    }
  }
};

}  // namespace

template <>
constinit const Int8Kernels PathTable<Int8Kernels, Isa::kAvx512Vnni>::kernels = {
    .quantize_row = quantize_row, .multiply = multiply_panels<VnniDots, 8, 4, 2, 1>};

}  // namespace pkv
