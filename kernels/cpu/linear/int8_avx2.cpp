// 8-bit dot products with AVX2, through vpmaddubsw.
#include <immintrin.h>

#include "kernels/cpu/linear/int8_panels.h"

namespace pkv {
namespace {

typedef int32_t __attribute__((may_alias)) Quad;  // four codes of activations

inline __m256i broadcast_quad(const int8_t* x) { return _mm256_set1_epi32(*reinterpret_cast<const Quad*>(x)); }

struct MaddDots {
  // |code * x| <= 15 * 127, so the 16 products of an element's 16-bit half (8 loads of pairs) stay below 2^15.
  template <int kRows>
  static void nibbles(const uint8_t* codes, const GroupRows& rows, __m256i (&dots)[kRows][kParts]) {
    const __m256i nibble = _mm256_set1_epi8(15);
    const __m256i ones = _mm256_set1_epi16(1);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) dots[r][0] = dots[r][1] = _mm256_setzero_si256();
    for (int j = 0; j < 4; ++j) {
      const __m256i a = I::load(codes + j * 64), b = I::load(codes + j * 64 + 32);
      const __m256i a0 = _mm256_and_si256(a, nibble), a1 = _mm256_and_si256(_mm256_srli_epi16(a, 4), nibble);
      const __m256i b0 = _mm256_and_si256(b, nibble), b1 = _mm256_and_si256(_mm256_srli_epi16(b, 4), nibble);
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        const int8_t* x = rows.codes + r * rows.stride + 8 * j;
        const __m256i x0 = broadcast_quad(x), x1 = broadcast_quad(x + 4);
        dots[r][0] = _mm256_add_epi16(dots[r][0], _mm256_maddubs_epi16(a0, x0));
        dots[r][0] = _mm256_add_epi16(dots[r][0], _mm256_maddubs_epi16(a1, x1));
        dots[r][1] = _mm256_add_epi16(dots[r][1], _mm256_maddubs_epi16(b0, x0));
        dots[r][1] = _mm256_add_epi16(dots[r][1], _mm256_maddubs_epi16(b1, x1));
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const __m256i correction = _mm256_set1_epi32(rows.corrections[r * rows.correction_stride]);
      dots[r][0] = _mm256_add_epi32(correction, _mm256_madd_epi16(dots[r][0], ones));
      dots[r][1] = _mm256_add_epi32(correction, _mm256_madd_epi16(dots[r][1], ones));
    }
  }

  // The zero point is taken off first, then |w| times x with w's sign, since vpmaddubsw wants one operand unsigned;
  // |w| <= 128 and |x| <= 127 keep the pair sums below 2^15. Corrections are not needed.
  template <int kRows>
  static void bytes(const uint8_t* codes, const PackedView& weight, const GroupRows& rows,
                    __m256i (&dots)[kRows][kParts]) {
    const __m256i zero_point = _mm256_set1_epi8(static_cast<char>(weight.zero_point));
    const __m256i ones = _mm256_set1_epi16(1);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) dots[r][0] = dots[r][1] = _mm256_setzero_si256();
    for (int j = 0; j < weight.group / 4; ++j) {
      const __m256i a = _mm256_sub_epi8(I::load(codes + j * 64), zero_point);
      const __m256i b = _mm256_sub_epi8(I::load(codes + j * 64 + 32), zero_point);
      const __m256i a_size = _mm256_abs_epi8(a), b_size = _mm256_abs_epi8(b);
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        const __m256i q = broadcast_quad(rows.codes + r * rows.stride + 4 * j);
        const __m256i low = _mm256_maddubs_epi16(a_size, _mm256_sign_epi8(q, a));
        const __m256i high = _mm256_maddubs_epi16(b_size, _mm256_sign_epi8(q, b));
        dots[r][0] = _mm256_add_epi32(dots[r][0], _mm256_madd_epi16(low, ones));
        dots[r][1] = _mm256_add_epi32(dots[r][1], _mm256_madd_epi16(high, ones));
      }
    }
  }
};

}  // namespace

template <>
constinit const Int8Kernels PathTable<Int8Kernels, Isa::kAvx2>::kernels = {
    .quantize_row = quantize_row, .multiply = multiply_panels<MaddDots, 3, 2, 1>};

}  // namespace pkv
