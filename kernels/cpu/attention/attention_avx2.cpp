// Attention with AVX2, FMA and F16C: eight lanes.
#include <immintrin.h>

#include "kernels/cpu/attention/attention_kernels.h"

namespace pkv {
namespace {

using Vec = __m256;

constexpr int32_t kWidth = 8;
constexpr int32_t kPanelRows = 6;
constexpr int32_t kPanelVectors = 2;
constexpr int32_t kMaxGroup = 4;
constexpr int key_blocks(int group) { return group <= 2 ? 4 : group == 3 ? 3 : 2; }
constexpr int value_vectors(int group) { return group <= 3 ? 4 : 2; }

Vec set1(float x) { return _mm256_set1_ps(x); }
Vec load(const float* p) { return _mm256_loadu_ps(p); }
Vec load(const uint16_t* p) { return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
// A page holds at least eight elements after its keys, so whole vectors never leave it.
Vec load_part(const float* p, int32_t) { return load(p); }
Vec load_part(const uint16_t* p, int32_t) { return load(p); }
void store(float* p, Vec v) { _mm256_storeu_ps(p, v); }
void store_part(float* p, Vec v, int32_t) { store(p, v); }
void store_range(float* p, Vec v, int32_t begin, int32_t end) {
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  const __m256i from = _mm256_cmpgt_epi32(lane, _mm256_set1_epi32(begin - 1));
  const __m256i upto = _mm256_cmpgt_epi32(_mm256_set1_epi32(end), lane);
  _mm256_maskstore_ps(p, _mm256_and_si256(from, upto), v);
}
Vec add(Vec a, Vec b) { return _mm256_add_ps(a, b); }
Vec sub(Vec a, Vec b) { return _mm256_sub_ps(a, b); }
Vec mul(Vec a, Vec b) { return _mm256_mul_ps(a, b); }
Vec fma(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }
Vec max(Vec a, Vec b) { return _mm256_max_ps(a, b); }
float reduce_add(Vec v) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
float reduce_max(Vec v) {
  __m128 s = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  s = _mm_max_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}

// 2^x for x <= 127 to 1 ulp; 0 below the smallest normal number.
Vec exp2(Vec x) {
  const Vec n = _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const Vec f = sub(x, n);
  Vec p = fma(f, set1(kExp2C6), set1(kExp2C5));
  p = fma(p, f, set1(kExp2C4));
  p = fma(p, f, set1(kExp2C3));
  p = fma(p, f, set1(kExp2C2));
  p = fma(p, f, set1(kExp2C1));
  p = fma(p, f, set1(1.0f));
  const __m256i power = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
  const Vec tiny = _mm256_cmp_ps(x, set1(-126.0f), _CMP_LT_OQ);
  return _mm256_andnot_ps(tiny, mul(p, _mm256_castsi256_ps(power)));
}

void to_half(const float* from, uint16_t* to, int64_t count) {
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + i), _mm256_cvtps_ph(load(from + i), _MM_FROUND_TO_NEAREST_INT));
  }
  for (; i < count; ++i) to[i] = _cvtss_sh(from[i], _MM_FROUND_TO_NEAREST_INT);
}

#include "kernels/cpu/attention/attention_loops.inc"

}  // namespace

constinit const AttentionKernels kAttentionAvx2 = {kFloatPanel, decode_tile, combine_tiles, lse_panel,
                                                   mass_panel,  to_half,     to_float};

}  // namespace pkv
