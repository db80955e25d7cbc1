// Attention with AVX-512 F, BW, VL, DQ: sixteen lanes, float32 products.
#include <immintrin.h>

#include "kernels/cpu/attention/attention_kernels.h"

namespace pkv {
namespace {

#include "kernels/cpu/attention/attention_avx512.inc"

constexpr int32_t kPanelRows = 12;
constexpr int32_t kPanelVectors = 2;
constexpr int32_t kMaxGroup = 8;
constexpr int key_blocks(int group) { return group <= 2 ? 8 : group <= 4 ? 4 : 2; }
constexpr int value_vectors(int group) { return group <= 4 ? 4 : 2; }

// Eight slots each from two places.
Vec load_pair(const float* low, const float* high) {
  return _mm512_insertf32x8(_mm512_castps256_ps512(_mm256_loadu_ps(low)), _mm256_loadu_ps(high), 1);
}
Vec load_pair(const uint16_t* low, const uint16_t* high) {
  const __m128i a = _mm_loadu_si128(reinterpret_cast<const __m128i*>(low));
  const __m128i b = _mm_loadu_si128(reinterpret_cast<const __m128i*>(high));
  return _mm512_cvtph_ps(_mm256_inserti128_si256(_mm256_castsi128_si256(a), b, 1));
}
void store_part(float* p, Vec v, int32_t lanes) { _mm512_mask_storeu_ps(p, first_lanes(lanes), v); }
void store_range(float* p, Vec v, int32_t begin, int32_t end) {
  _mm512_mask_storeu_ps(p, static_cast<__mmask16>(first_lanes(end) & ~first_lanes(begin)), v);
}

void to_half(const float* from, uint16_t* to, int64_t count) {
  int64_t i = 0;
  for (; i + 16 <= count; i += 16) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + i), _mm512_cvtps_ph(load(from + i), _MM_FROUND_TO_NEAREST_INT));
  }
  for (; i < count; ++i) to[i] = _cvtss_sh(from[i], _MM_FROUND_TO_NEAREST_INT);
}

#include "kernels/cpu/attention/attention_loops.inc"

}  // namespace

constinit const AttentionKernels kAttentionAvx512 = {kFloatPanel, decode_tile, combine_tiles, lse_panel,
                                                     mass_panel,  to_half,     to_float};

}  // namespace pkv
