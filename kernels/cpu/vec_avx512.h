// Vec (vec.h) with AVX-512 F, BW, VL, DQ: sixteen floats.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "kernels/cpu/isa_path.h"

namespace pkv {
namespace {

constexpr Isa kIsa = Isa::kAvx512;

template <typename T>
struct Vec;

template <>
struct Vec<float> {
  using Type = __m512;
  static constexpr int32_t kWidth = 16;

  static __mmask16 first_mask(int32_t count) { return static_cast<__mmask16>((1u << count) - 1); }

  static Type broadcast(float x) { return _mm512_set1_ps(x); }
  static Type load(const float* p) { return _mm512_loadu_ps(p); }
  static Type load(const uint16_t* p) { return _mm512_cvtph_ps(load_halves(p)); }
  static Type load_first(const float* p, int32_t count) { return _mm512_maskz_loadu_ps(first_mask(count), p); }
  static Type load_first(const uint16_t* p, int32_t count) {
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first_mask(count), p));
  }
  // Eight elements each from two places.
  static Type load_pair(const float* low, const float* high) {
    return _mm512_insertf32x8(_mm512_castps256_ps512(_mm256_loadu_ps(low)), _mm256_loadu_ps(high), 1);
  }
  static Type load_pair(const uint16_t* low, const uint16_t* high) {
    const __m128i a = _mm_loadu_si128(reinterpret_cast<const __m128i*>(low));
    const __m128i b = _mm_loadu_si128(reinterpret_cast<const __m128i*>(high));
    return _mm512_cvtph_ps(_mm256_inserti128_si256(_mm256_castsi128_si256(a), b, 1));
  }
  static void store(float* p, Type v) { _mm512_storeu_ps(p, v); }
  static void store_first(float* p, Type v, int32_t count) { _mm512_mask_storeu_ps(p, first_mask(count), v); }
  static void store_range(float* p, Type v, int32_t from, int32_t to) {
    _mm512_mask_storeu_ps(p, static_cast<__mmask16>(first_mask(to) & ~first_mask(from)), v);
  }

  static Type fma(Type a, Type b, Type c) { return _mm512_fmadd_ps(a, b, c); }
  static Type max(Type a, Type b) { return _mm512_max_ps(a, b); }
  static float first(Type v) { return _mm512_cvtss_f32(v); }
  static float sum(Type v) { return _mm512_reduce_add_ps(v); }
  static float largest(Type v) { return _mm512_reduce_max_ps(v); }

  static Type round(Type x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  static Type ldexp(Type p, Type n, Type x) {
    return _mm512_maskz_scalef_ps(_mm512_cmp_ps_mask(x, broadcast(-126.0f), _CMP_NLT_UQ), p, n);
  }
  static void to_half(uint16_t* p, Type v) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
  }
  static Type load_bfloat16(const uint16_t* p) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(load_halves(p)), 16));
  }
  static __m512i to_int(Type v) { return _mm512_cvtps_epi32(v); }

 private:
  static __m256i load_halves(const uint16_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
};

template <>
struct Vec<int32_t> {
  using Type = __m512i;

  static Type broadcast(int32_t x) { return _mm512_set1_epi32(x); }
  static Type load(const void* p) { return _mm512_loadu_si512(p); }
  static Type load_u8(const uint8_t* p) { return _mm512_cvtepu8_epi32(load_bytes(p)); }
  static Type load_i8(const uint8_t* p) { return _mm512_cvtepi8_epi32(load_bytes(p)); }
  static void store_i8(int8_t* p, Type v) { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtsepi32_epi8(v)); }
  static Type add(Type a, Type b) { return _mm512_add_epi32(a, b); }
  template <int kBits>
  static Type shift_right(Type v) {
    return _mm512_srli_epi32(v, kBits);
  }
  static __m512 to_float(Type v) { return _mm512_cvtepi32_ps(v); }
  static int32_t sum(Type v) { return _mm512_reduce_add_epi32(v); }

 private:
  static __m128i load_bytes(const uint8_t* p) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)); }
};

inline uint16_t half_of(float x) { return _cvtss_sh(x, _MM_FROUND_TO_NEAREST_INT); }

}  // namespace
}  // namespace pkv
