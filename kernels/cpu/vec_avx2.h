// Vec (vec.h) with AVX2, FMA and F16C: eight floats.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "kernels/cpu/elements.h"
#include "kernels/cpu/isa_path.h"

namespace pkv {
namespace {

constexpr Isa kIsa = Isa::kAvx2;

template <typename T>
struct Vec;

template <>
struct Vec<float> {
  using Type = __m256;
  static constexpr int32_t kWidth = 8;

  static Type broadcast(float x) { return _mm256_set1_ps(x); }
  static Type load(const float* p) { return _mm256_loadu_ps(p); }
  static Type load(const uint16_t* p) { return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
  static Type load(const Bfloat16* p) {
    const __m256i bits = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    return _mm256_castsi256_ps(_mm256_slli_epi32(bits, 16));
  }
  static Type load(const int8_t* p) { return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(load_eight(p))); }
  static Type load(const NibblePair* p) {
    int32_t four;
    __builtin_memcpy(&four, p, sizeof(four));
    const __m256i wide = _mm256_cvtepu8_epi64(_mm_cvtsi32_si128(four));
    // The high half of a pair comes to the element behind.
    return low_nibbles(_mm256_or_si256(wide, _mm256_slli_epi64(wide, 28)));
  }
  template <typename T>
  static Type load_first(const T* p, int32_t) {
    return load(p);
  }
  static void load_split(const NibblePair* p, Type& even, Type& odd) {
    const __m256i pairs = _mm256_cvtepi8_epi32(load_eight(p));
    even = low_nibbles(pairs);
    odd = _mm256_cvtepi32_ps(_mm256_srai_epi32(pairs, 4));
  }
  static void zip(Type even, Type odd, Type& a, Type& b) {
    const Type low = _mm256_unpacklo_ps(even, odd), high = _mm256_unpackhi_ps(even, odd);
    a = _mm256_permute2f128_ps(low, high, 0x20);
    b = _mm256_permute2f128_ps(low, high, 0x31);
  }
  static void store(float* p, Type v) { _mm256_storeu_ps(p, v); }
  static void store_first(float* p, Type v, int32_t) { store(p, v); }
  static void store_range(float* p, Type v, int32_t from, int32_t to) {
    const __m256i index = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256i after = _mm256_cmpgt_epi32(index, _mm256_set1_epi32(from - 1));
    const __m256i before = _mm256_cmpgt_epi32(_mm256_set1_epi32(to), index);
    _mm256_maskstore_ps(p, _mm256_and_si256(after, before), v);
  }

  static Type fma(Type a, Type b, Type c) { return _mm256_fmadd_ps(a, b, c); }
  static Type max(Type a, Type b) { return _mm256_max_ps(a, b); }
  static float first(Type v) { return _mm256_cvtss_f32(v); }
  static float sum(Type v) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
  }
  static float largest(Type v) {
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
  }

  static Type round(Type x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  static Type ldexp(Type p, Type n, Type x) {
    const __m256i power = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
    const Type tiny = _mm256_cmp_ps(x, broadcast(-126.0f), _CMP_LT_OQ);
    return _mm256_andnot_ps(tiny, p * _mm256_castsi256_ps(power));
  }
  static void to_half(uint16_t* p, Type v) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
  }
  static __m256i to_int(Type v) { return _mm256_cvtps_epi32(v); }

 private:
  static __m128i load_eight(const void* p) { return _mm_loadl_epi64(static_cast<const __m128i*>(p)); }
  // The number in the lowest four bits of each element, whatever lies above.
  static Type low_nibbles(__m256i codes) {
    return _mm256_cvtepi32_ps(_mm256_srai_epi32(_mm256_slli_epi32(codes, 28), 28));
  }
};

template <>
struct Vec<int32_t> {
  using Type = __m256i;

  static Type broadcast(int32_t x) { return _mm256_set1_epi32(x); }
  static Type load(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
  static Type load_u8(const uint8_t* p) { return _mm256_cvtepu8_epi32(load_bytes(p)); }
  static Type load_i8(const uint8_t* p) { return _mm256_cvtepi8_epi32(load_bytes(p)); }
  static void store_i8(int8_t* p, Type v) {
    const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packs_epi16(words, words));
  }
  static Type add(Type a, Type b) { return _mm256_add_epi32(a, b); }
  template <int kBits>
  static Type shift_right(Type v) {
    return _mm256_srli_epi32(v, kBits);
  }
  static __m256 to_float(Type v) { return _mm256_cvtepi32_ps(v); }
  static int32_t sum(Type v) {
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
  }

 private:
  static __m128i load_bytes(const uint8_t* p) { return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)); }
};

inline uint16_t half_of(float x) { return _cvtss_sh(x, _MM_FROUND_TO_NEAREST_INT); }
inline float float_of(uint16_t half) { return _cvtsh_ss(half); }

}  // namespace
}  // namespace pkv
