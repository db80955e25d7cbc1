// Attention on any CPU: the compiler's own four-lane vectors, no instruction set beyond the baseline.
#include "kernels/cpu/attention/attention_kernels.h"
#include "kernels/quant.h"

namespace pkv {
namespace {

typedef float Vec __attribute__((vector_size(16)));
typedef int32_t IntVec __attribute__((vector_size(16)));

constexpr int32_t kWidth = 4;
constexpr int32_t kPanelRows = 4;
constexpr int32_t kPanelVectors = 2;
constexpr int32_t kMaxGroup = 4;
constexpr int key_blocks(int group) { return group == 1 ? 4 : 2; }
constexpr int value_vectors(int group) { return group <= 2 ? 4 : 2; }

Vec set1(float x) { return Vec{x, x, x, x}; }
Vec load(const float* p) {
  Vec v;
  __builtin_memcpy(&v, p, sizeof(v));
  return v;
}
Vec as_floats(IntVec bits) {
  Vec v;
  __builtin_memcpy(&v, &bits, sizeof(v));
  return v;
}
// Exact: the half's exponent and mantissa at their float places, times 2^(127 - 15); subnormal halves become normal by
// it.
Vec load(const uint16_t* p) {
  const IntVec half = {p[0], p[1], p[2], p[3]};
  const IntVec magnitude = half & 0x7fff;
  const IntVec special = magnitude >= 0x7c00 ? IntVec{} + 0x7f800000 : IntVec{};  // infinity and NaN
  const Vec value = as_floats(magnitude << 13) * 0x1p112f;
  IntVec bits;
  __builtin_memcpy(&bits, &value, sizeof(bits));
  return as_floats(bits | special | (half & 0x8000) << 16);
}
// A page holds at least eight elements after its keys, so whole vectors never leave it.
Vec load_part(const float* p, int32_t) { return load(p); }
Vec load_part(const uint16_t* p, int32_t) { return load(p); }
void store(float* p, Vec v) { __builtin_memcpy(p, &v, sizeof(v)); }
void store_part(float* p, Vec v, int32_t) { store(p, v); }
void store_range(float* p, Vec v, int32_t begin, int32_t end) {
  for (int32_t i = begin; i < end; ++i) p[i] = v[i];
}
Vec add(Vec a, Vec b) { return a + b; }
Vec sub(Vec a, Vec b) { return a - b; }
Vec mul(Vec a, Vec b) { return a * b; }
Vec fma(Vec a, Vec b, Vec c) { return a * b + c; }
Vec max(Vec a, Vec b) { return a > b ? a : b; }
float reduce_add(Vec v) { return (v[0] + v[2]) + (v[1] + v[3]); }
float reduce_max(Vec v) {
  const float a = v[0] > v[2] ? v[0] : v[2];
  const float b = v[1] > v[3] ? v[1] : v[3];
  return a > b ? a : b;
}

// 2^x for x <= 127 to 1 ulp; 0 below the smallest normal number.
Vec exp2(Vec x) {
  const Vec rounder = set1(12582912.0f);  // 1.5 * 2^23: adding it rounds to the nearest integer
  const Vec n = (x + rounder) - rounder;
  const Vec f = x - n;
  Vec p = f * kExp2C6 + kExp2C5;
  p = p * f + kExp2C4;
  p = p * f + kExp2C3;
  p = p * f + kExp2C2;
  p = p * f + kExp2C1;
  p = p * f + 1.0f;
  const IntVec tiny = x < -126.0f;
  const Vec safe = tiny ? set1(0.0f) : n;
  const IntVec power = (__builtin_convertvector(safe, IntVec) + 127) << 23;
  return tiny ? set1(0.0f) : p * as_floats(power);
}

void to_half(const float* from, uint16_t* to, int64_t count) {
  for (int64_t i = 0; i < count; ++i) to[i] = float_to_half(from[i]);
}

#include "kernels/cpu/attention/attention_loops.inc"

}  // namespace

constinit const AttentionKernels kAttentionScalar = {kFloatPanel, decode_tile, combine_tiles, lse_panel,
                                                     mass_panel,  to_half,     to_float};

}  // namespace pkv
