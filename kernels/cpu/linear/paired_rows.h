// Quantises rows of activations to paired groups.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "kernels/cpu/linear/paired_groups.h"

namespace pkv {
namespace {

// Inputs from k on; zeros behind the last.
inline V::Type load_inputs(const float* from, const PackedView& weight, int64_t k) {
  return k < weight.cols ? V::load(from + k) : V::broadcast(0.0f);
}

// The row's largest magnitude. That of each group waits where its correction will be.
template <int kGroup>
float find_largest(const float* from, const PackedView& weight, int64_t inputs, RowPair<kGroup>* pairs) {
  float largest = 0;
  for (int64_t k = 0; k < inputs; k += kGroup) {
    V::Type magnitude = V::broadcast(0.0f);
    for (int64_t i = 0; i < kGroup; i += V::kWidth) {
      magnitude = V::max(magnitude, _mm512_abs_ps(load_inputs(from, weight, k + i)));
    }
    const float of_group = V::largest(magnitude);
    __builtin_memcpy(&pairs[k / kGroup / 2].corrections[k / kGroup % 2], &of_group, sizeof(of_group));
    largest = of_group > largest ? of_group : largest;
  }
  return largest;
}

// The codes of 64 inputs, rounded, as pairs have them.
template <int kGroup>
I::Type order_codes(const I::Type (&codes)[4]) {
  const I::Type order = kGroup == 32 ? _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15)
                                     : _mm512_setr_epi32(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15);
  return _mm512_permutexvar_epi32(
      order, _mm512_packs_epi16(_mm512_packs_epi32(codes[0], codes[1]), _mm512_packs_epi32(codes[2], codes[3])));
}

// The sums of the groups' codes, in that order.
template <int kGroup>
__m128i sum_groups(I::Type codes) {
  const I::Type fours = _mm512_dpbusd_epi32(I::broadcast(0), _mm512_set1_epi8(1), codes);
  const __m256i low = _mm512_castsi512_si256(fours), high = _mm512_extracti64x4_epi64(fours, 1);
  const auto fold = [](__m256i v) {
    const __m128i half = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    return _mm_add_epi32(half, _mm_unpackhi_epi64(half, half));
  };
  return kGroup == 32 ? fold(_mm256_add_epi32(low, high)) : _mm_unpacklo_epi64(fold(low), fold(high));
}

template <int kGroup>
void quantize_groups(const float* from, const PackedView& weight, void* to, float* row_scale) {
  constexpr int64_t kPairs = kStep / kGroup / 2;  // of a step
  auto* pair = static_cast<RowPair<kGroup>*>(to);
  const int64_t inputs = (weight.cols + kStep - 1) / kStep * kStep;
  const float largest = find_largest(from, weight, inputs, pair);
  const float unit = largest / (127.0f * 32767.0f);
  *row_scale = unit * 32768.0f;
  const __m128 unit_all = _mm_set1_ps(unit), factor = _mm_set1_ps(largest > 0 ? 32767.0f / largest : 0.0f);
  const __m128i centre = _mm_set1_epi32(-centre_of(weight)), half = _mm_set1_epi32((1 << shift_of(weight)) / 2);
  for (int64_t k = 0; k < inputs; k += kStep, pair += kPairs) {
    // Of the step's two or four groups; scales are rounded up, so that no code exceeds 127.
    __m128i maxima = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(pair[0].corrections));
    if (kPairs == 2) {
      maxima = _mm_unpacklo_epi64(maxima, _mm_loadl_epi64(reinterpret_cast<const __m128i*>(pair[1].corrections)));
    }
    const __m128 scales = _mm_min_ps(_mm_ceil_ps(_mm_mul_ps(_mm_castsi128_ps(maxima), factor)), _mm_set1_ps(32767.0f));
    const __mmask8 some = _mm_cmp_ps_mask(scales, _mm_setzero_ps(), _CMP_GT_OQ);
    const __m128 inverse = _mm_maskz_div_ps(some, _mm_set1_ps(1.0f), _mm_mul_ps(scales, unit_all));
    I::Type rounded[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const V::Type of_group = V::broadcast(inverse[i * V::kWidth / kGroup]);
      rounded[i] = V::to_int(load_inputs(from, weight, k + i * V::kWidth) * of_group);
    }
    alignas(64) int8_t codes[kStep];
    _mm512_store_si512(codes, order_codes<kGroup>(rounded));
    const __m128i sums = sum_groups<kGroup>(_mm512_load_si512(codes));
    const __m128 scaled = _mm_mul_ps(_mm_cvtepi32_ps(sums), _mm_mul_ps(scales, _mm_set1_ps(0x1p-15f * kSumFactor)));
    alignas(16) int16_t shorts[8];  // scales, then sums
    alignas(16) int32_t corrections[4];
    _mm_store_si128(reinterpret_cast<__m128i*>(shorts),
                    _mm_packs_epi32(_mm_cvtps_epi32(scales), _mm_cvtps_epi32(scaled)));
    _mm_store_si128(reinterpret_cast<__m128i*>(corrections), _mm_add_epi32(_mm_mullo_epi32(sums, centre), half));
    for (int64_t p = 0; p < kPairs; ++p) {
      __builtin_memcpy(pair[p].codes, codes + 2 * kGroup * p, sizeof(pair[p].codes));
      __builtin_memcpy(pair[p].corrections, corrections + 2 * p, sizeof(pair[p].corrections));
      __builtin_memcpy(pair[p].scales, shorts + 2 * p, sizeof(pair[p].scales));
      __builtin_memcpy(pair[p].sums, shorts + 4 + 2 * p, sizeof(pair[p].sums));
    }
  }
}

int64_t step_bytes(const PackedView& weight) {
  return weight.group == 16 ? 2 * sizeof(RowPair<16>) : sizeof(RowPair<32>);
}

void quantize_row(const float* from, const PackedView& weight, void* to, float* row_scale) {
  weight.group == 16 ? quantize_groups<16>(from, weight, to, row_scale)
                     : quantize_groups<32>(from, weight, to, row_scale);
}

}  // namespace
}  // namespace pkv
