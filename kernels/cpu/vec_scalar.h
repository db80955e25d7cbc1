// Vec (vec.h) on any CPU: the compiler's own vectors of four floats, no instruction set beyond the baseline.
#pragma once

#include <cstdint>

#include "kernels/cpu/elements.h"
#include "kernels/cpu/isa_path.h"
#include "kernels/quant.h"

namespace pkv {
namespace {

constexpr Isa kIsa = Isa::kScalar;

template <typename T>
struct Vec;

template <>
struct Vec<float> {
  typedef float Type __attribute__((vector_size(16)));
  typedef int32_t IntType __attribute__((vector_size(16)));
  static constexpr int32_t kWidth = 4;

  static Type broadcast(float x) { return Type{x, x, x, x}; }
  static Type load(const float* p) {
    Type v;
    __builtin_memcpy(&v, p, sizeof(v));
    return v;
  }
  // Exact: the half's exponent and mantissa at their float places, times 2^(127 - 15); subnormal halves become normal
  // by it.
  static Type load(const uint16_t* p) {
    const IntType half = {p[0], p[1], p[2], p[3]};
    const IntType magnitude = half & 0x7fff;
    const IntType special = magnitude >= 0x7c00 ? IntType{} + 0x7f800000 : IntType{};  // infinity and NaN
    const Type value = as_floats(magnitude << 13) * 0x1p112f;
    IntType bits;
    __builtin_memcpy(&bits, &value, sizeof(bits));
    return as_floats(bits | special | (half & 0x8000) << 16);
  }
  static Type load(const Bfloat16* p) {
    const IntType bits = {p[0].bits, p[1].bits, p[2].bits, p[3].bits};
    return as_floats(bits << 16);
  }
  static Type load(const int8_t* p) { return to_float(IntType{p[0], p[1], p[2], p[3]}); }
  static Type load(const NibblePair* p) {
    return low_nibbles(IntType{p[0].bits, p[0].bits >> 4, p[1].bits, p[1].bits >> 4});
  }
  template <typename T>
  static Type load_first(const T* p, int32_t) {
    return load(p);
  }
  static void load_split(const NibblePair* p, Type& even, Type& odd) {
    const IntType pairs = {p[0].bits, p[1].bits, p[2].bits, p[3].bits};
    even = low_nibbles(pairs);
    odd = low_nibbles(pairs >> 4);
  }
  static void zip(Type even, Type odd, Type& a, Type& b) {
    a = Type{even[0], odd[0], even[1], odd[1]};
    b = Type{even[2], odd[2], even[3], odd[3]};
  }
  static void store(float* p, Type v) { __builtin_memcpy(p, &v, sizeof(v)); }
  static void store_first(float* p, Type v, int32_t) { store(p, v); }
  static void store_range(float* p, Type v, int32_t from, int32_t to) {
    for (int32_t i = from; i < to; ++i) p[i] = v[i];
  }

  static Type fma(Type a, Type b, Type c) { return a * b + c; }
  static Type max(Type a, Type b) { return a > b ? a : b; }
  static float first(Type v) { return v[0]; }
  static float sum(Type v) { return (v[0] + v[2]) + (v[1] + v[3]); }
  static float largest(Type v) {
    const float a = v[0] > v[2] ? v[0] : v[2];
    const float b = v[1] > v[3] ? v[1] : v[3];
    return a > b ? a : b;
  }

  static Type round(Type x) {
    const Type rounder = broadcast(12582912.0f);  // 1.5 * 2^23: adding it rounds to the nearest integer
    return (x + rounder) - rounder;
  }
  static Type ldexp(Type p, Type n, Type x) {
    const IntType tiny = x < -126.0f;
    const Type safe = tiny ? broadcast(0.0f) : n;
    const IntType power = (__builtin_convertvector(safe, IntType) + 127) << 23;
    return tiny ? broadcast(0.0f) : p * as_floats(power);
  }
  static void to_half(uint16_t* p, Type v) {
    for (int32_t i = 0; i < kWidth; ++i) p[i] = float_to_half(v[i]);
  }
  static IntType to_int(Type v) {
    IntType to;
    for (int32_t i = 0; i < kWidth; ++i) to[i] = static_cast<int32_t>(__builtin_lrintf(v[i]));
    return to;
  }

 private:
  static Type as_floats(IntType bits) {
    Type v;
    __builtin_memcpy(&v, &bits, sizeof(v));
    return v;
  }
  static Type to_float(IntType v) { return __builtin_convertvector(v, Type); }
  // The number in the lowest four bits of each element, whatever lies above.
  static Type low_nibbles(IntType codes) { return to_float(((codes & 15) ^ 8) - 8); }
};

template <>
struct Vec<int32_t> {
  using Type = Vec<float>::IntType;

  static Type broadcast(int32_t x) { return Type{x, x, x, x}; }
  static Type load(const void* p) {
    Type v;
    __builtin_memcpy(&v, p, sizeof(v));
    return v;
  }
  static Type load_u8(const uint8_t* p) { return Type{p[0], p[1], p[2], p[3]}; }
  static Type load_i8(const uint8_t* p) {
    return Type{static_cast<int8_t>(p[0]), static_cast<int8_t>(p[1]), static_cast<int8_t>(p[2]),
                static_cast<int8_t>(p[3])};
  }
  static void store_i8(int8_t* p, Type v) {
    for (int32_t i = 0; i < 4; ++i) p[i] = static_cast<int8_t>(v[i]);
  }
  static Type add(Type a, Type b) { return a + b; }
  template <int kBits>
  static Type shift_right(Type v) {
    return v >> kBits & static_cast<int32_t>(0xffffffffu >> kBits);
  }
  static Vec<float>::Type to_float(Type v) { return __builtin_convertvector(v, Vec<float>::Type); }
  static int32_t sum(Type v) { return v[0] + v[1] + v[2] + v[3]; }
};

inline uint16_t half_of(float x) { return float_to_half(x); }
inline float float_of(uint16_t half) { return half_to_float(half); }

}  // namespace
}  // namespace pkv
