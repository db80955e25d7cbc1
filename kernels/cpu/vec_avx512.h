// Vec (vec.h) with AVX-512 F, BW, VL, DQ: sixteen floats.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "kernels/cpu/elements.h"
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
  static Type load(const Bfloat16* p) { return from_bfloat16(load_halves(p)); }
  static Type load(const int8_t* p) { return from_bytes(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
  static Type load(const NibblePair* p) { return from_nibbles(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))); }
  static Type load_first(const float* p, int32_t count) { return _mm512_maskz_loadu_ps(first_mask(count), p); }
  static Type load_first(const uint16_t* p, int32_t count) {
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first_mask(count), p));
  }
  static Type load_first(const Bfloat16* p, int32_t count) {
    return from_bfloat16(_mm256_maskz_loadu_epi16(first_mask(count), p));
  }
  static Type load_first(const int8_t* p, int32_t count) {
    return from_bytes(_mm_maskz_loadu_epi8(first_mask(count), p));
  }
  static Type load_first(const NibblePair* p, int32_t count) {
    return from_nibbles(_mm_maskz_loadu_epi8(first_mask((count + 1) / 2), p));
  }
  // Eight elements each from two places.
  static Type load_pair(const float* low, const float* high) {
    return _mm512_insertf32x8(_mm512_castps256_ps512(_mm256_loadu_ps(low)), _mm256_loadu_ps(high), 1);
  }
  static Type load_pair(const uint16_t* low, const uint16_t* high) { return _mm512_cvtph_ps(load_halves(low, high)); }
  static Type load_pair(const Bfloat16* low, const Bfloat16* high) { return from_bfloat16(load_halves(low, high)); }
  static Type load_pair(const int8_t* low, const int8_t* high) {
    const __m128i a = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(low));
    return from_bytes(_mm_unpacklo_epi64(a, _mm_loadl_epi64(reinterpret_cast<const __m128i*>(high))));
  }
  static void load_split(const NibblePair* p, Type& even, Type& odd) {
    const __m512i pairs = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    even = low_nibbles(pairs);
    odd = low_nibbles(_mm512_srli_epi32(pairs, 4));
  }
  static void zip(Type even, Type odd, Type& a, Type& b) {
    const __m512i first = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    a = _mm512_permutex2var_ps(even, first, odd);
    b = _mm512_permutex2var_ps(even, _mm512_add_epi32(first, _mm512_set1_epi32(8)), odd);
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
  static __m512i to_int(Type v) { return _mm512_cvtps_epi32(v); }

 private:
  static __m256i load_halves(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
  static __m256i load_halves(const void* low, const void* high) {
    const __m128i a = _mm_loadu_si128(static_cast<const __m128i*>(low));
    return _mm256_inserti128_si256(_mm256_castsi128_si256(a), _mm_loadu_si128(static_cast<const __m128i*>(high)), 1);
  }
  static Type from_bfloat16(__m256i halves) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
  }
  static Type from_bytes(__m128i bytes) { return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes)); }
  // The number in the lowest four bits of each element, whatever lies above.
  static Type low_nibbles(__m512i codes) {
    return _mm512_permutexvar_ps(codes, _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, -8, -7, -6, -5, -4, -3, -2, -1));
  }
  // Of eight bytes.
  static Type from_nibbles(__m128i pairs) {
    const __m512i wide = _mm512_cvtepu8_epi64(pairs);  // the high half of a pair comes to the element behind
    return low_nibbles(_mm512_or_si512(wide, _mm512_slli_epi64(wide, 28)));
  }
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
inline float float_of(uint16_t half) { return _cvtsh_ss(half); }

}  // namespace
}  // namespace pkv
