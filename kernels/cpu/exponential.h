// The two exponentials of the kernels: 2^x over vectors for weights of attention, whose scores carry log2(e) already,
// and e^x for plain loops, where a factor of log2(e) would cost large arguments their last digits. For sources that are
// compiled once per instruction set (vec.h).
#pragma once

#include <cstdint>

#include "kernels/cpu/vec.h"

namespace pkv {
namespace {

// 2^x for x <= 127 to 1 ulp; 0 below the smallest normal number. On [-0.5, 0.5] 2^f = 1 + c1 f + ... + c6 f^6 to 0.6
// ulp: (2^f - 1) / f interpolated at the six Chebyshev nodes.
inline Vec<float>::Type exp2(Vec<float>::Type x) {
  using V = Vec<float>;
  const V::Type n = V::round(x);
  const V::Type f = x - n;
  V::Type p = V::fma(f, V::broadcast(0.0001545316336f), V::broadcast(0.001339086331f));
  p = V::fma(p, f, V::broadcast(0.009618083015f));
  p = V::fma(p, f, V::broadcast(0.05550356954f));
  p = V::fma(p, f, V::broadcast(0.2402265072f));
  p = V::fma(p, f, V::broadcast(0.6931471825f));
  p = V::fma(p, f, V::broadcast(1.0f));
  return V::ldexp(p, n, x);
}
inline float exp2(float x) { return Vec<float>::first(exp2(Vec<float>::broadcast(x))); }

// e^x for finite x, within 2 units in the last place; arguments beyond float's range are clamped to it. Cody and
// Waite's reduction by ln 2 and the minimax polynomial of Cephes' expf. Its loops vectorise.
inline float exp(float x) {
  x = x < -87.0f ? -87.0f : x;
  x = x > 88.0f ? 88.0f : x;
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  const float n = (x * 1.44269504f + kRound) - kRound;
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  return p * __builtin_bit_cast(float, (static_cast<int32_t>(n) + 127) << 23);
}

}  // namespace
}  // namespace pkv
