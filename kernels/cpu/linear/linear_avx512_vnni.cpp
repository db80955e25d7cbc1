// 8-bit dot products with AVX512_VNNI: unsigned weight codes times signed activation codes by vpdpbusd, 16 outputs at a
// time.
#if defined(__x86_64__)
#include <immintrin.h>

#include "kernels/cpu/kernel_table.h"

namespace pkv {
namespace {

#include "kernels/cpu/linear/linear_avx512.inc"

void quantize_row(const float* x, const PackedView& weight, int32_t row, const Int8Rows& to) {
  int8_t* codes = to.codes + row * to.code_stride;
  const bool wide = weight.group == 32;  // the second half of a group; its mask is empty for groups of 16
  const __mmask16 upper = wide ? 0xffff : 0;
  for (int64_t group = 0; group < weight.cols / weight.group; ++group) {
    const float* from = x + group * weight.group;
    const __m512 a = _mm512_loadu_ps(from), b = _mm512_maskz_loadu_ps(upper, from + 16);
    const float largest = _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(a), _mm512_abs_ps(b)));
    const __m512 inverse = _mm512_set1_ps(largest > 0 ? 127.0f / largest : 0.0f);
    const __m512i qa = _mm512_cvtps_epi32(_mm512_mul_ps(a, inverse)),
                  qb = _mm512_cvtps_epi32(_mm512_mul_ps(b, inverse));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(codes + group * weight.group), _mm512_cvtsepi32_epi8(qa));
    if (wide) _mm_storeu_si128(reinterpret_cast<__m128i*>(codes + group * 32 + 16), _mm512_cvtsepi32_epi8(qb));
    const int32_t sum = _mm512_reduce_add_epi32(_mm512_add_epi32(qa, qb));
    const int64_t at = row * to.group_stride + group;
    to.scales[at] = largest / 127.0f;
    to.scaled_sums[at] = to.scales[at] * static_cast<float>(sum);
    to.corrections[at] = -weight.zero_point * sum;
  }
}

typedef int32_t __attribute__((may_alias)) Quad;  // four codes of activations

// sums += four products of each lane's unsigned bytes with the signed bytes at `x`, the same four for every lane.
// Written in assembly because g++ 12 spills the accumulators of the intrinsic.
inline __m512i dot_quad(__m512i sums, __m512i codes, const int8_t* x) {
  __asm__("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(sums) : "v"(codes), "m"(*reinterpret_cast<const Quad*>(x)));
  return sums;
}

template <int kRows>
inline void dot_nibbles(const uint8_t* codes, const int8_t* x, int64_t stride, __m512i* dots) {
  const __m512i nibble = _mm512_set1_epi8(15);
  for (int j = 0; j < 4; ++j) {
    const __m512i packed = _mm512_loadu_si512(codes + j * 64);
    const __m512i low = _mm512_and_si512(packed, nibble);
    const __m512i high = _mm512_and_si512(_mm512_srli_epi16(packed, 4), nibble);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      dots[r] = dot_quad(dots[r], low, x + r * stride + 8 * j);
      dots[r] = dot_quad(dots[r], high, x + r * stride + 8 * j + 4);
    }
  }
}

template <int kRows>
inline void dot_bytes(const uint8_t* codes, int32_t group, const int8_t* x, int64_t stride, __m512i* dots) {
  for (int j = 0; j < group / 4; ++j) {
    const __m512i quad = _mm512_loadu_si512(codes + j * 64);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) dots[r] = dot_quad(dots[r], quad, x + r * stride + 4 * j);
  }
}

template <int kRows>
void multiply_panel(const PackedView& weight, int64_t panel, const Int8Rows& x, int32_t row, bool accumulate,
                    float* out, int64_t out_stride) {
  const uint8_t* codes = weight.codes + panel * weight.panel_code_bytes;
  const uint8_t* scales = weight.scales + panel * weight.panel_scale_bytes;
  const bool nibbles = weight.code_kind == CodeKind::kNibble;
  const bool has_min = weight.zero_point == 0;
  const int64_t group_bytes = nibbles ? weight.group * kP / 2 : weight.group * kP;
  const int64_t groups = weight.cols / weight.group;
  __m512 sums[kRows];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) sums[r] = _mm512_setzero_ps();
  for (int64_t group = 0; group < groups; ++group, codes += group_bytes) {
    const int64_t at = row * x.group_stride + group;
    const int8_t* quads = x.codes + row * x.code_stride + group * weight.group;
    __m512i dots[kRows];
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) dots[r] = _mm512_set1_epi32(x.corrections[at + r * x.group_stride]);
    if (nibbles) {
      dot_nibbles<kRows>(codes, quads, x.code_stride, dots);
    } else {
      dot_bytes<kRows>(codes, weight.group, quads, x.code_stride, dots);
    }
    const Scales s = load_scales(weight, scales, group);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const __m512 scale = _mm512_mul_ps(s.scale, _mm512_set1_ps(x.scales[at + r * x.group_stride]));
      sums[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots[r]), scale, sums[r]);
      if (has_min) sums[r] = _mm512_fmadd_ps(s.min, _mm512_set1_ps(x.scaled_sums[at + r * x.group_stride]), sums[r]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
    store_outputs(sums[r], weight.rows - panel * kP, accumulate, out + (row + r) * out_stride + panel * kP);
  }
}

void multiply_int8(const PackedView& weight, int64_t first, int64_t last, const Int8Rows& x, bool accumulate,
                   float* out, int64_t out_stride) {
  for (int64_t panel = first; panel < last; ++panel) {
    int32_t row = 0;
    for (; row + 8 <= x.rows; row += 8) multiply_panel<8>(weight, panel, x, row, accumulate, out, out_stride);
    if (row + 4 <= x.rows) {
      multiply_panel<4>(weight, panel, x, row, accumulate, out, out_stride);
      row += 4;
    }
    if (row + 2 <= x.rows) {
      multiply_panel<2>(weight, panel, x, row, accumulate, out, out_stride);
      row += 2;
    }
    if (row < x.rows) multiply_panel<1>(weight, panel, x, row, accumulate, out, out_stride);
  }
}

}  // namespace

const LinearKernels kLinearAvx512Vnni = {
    .int8 = {.quantize_row = quantize_row, .multiply = multiply_int8},
};

}  // namespace pkv
#endif  // __x86_64__
