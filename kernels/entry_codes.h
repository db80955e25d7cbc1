// The codes and scales of entry formats that have them: how numbers become small integers. Plain data and constexpr:
// host and device code share it, and every backend writes the same bits.
//
//   int8   scale = f16(m / 127), m the largest magnitude              number = scale * code, code -127 .. 127
//   int4   scale = f16(m / -8), m the number of largest magnitude     number = scale * code, code -8 .. 7
//
// The numbers are not a key's or value's elements but those of a Walsh-Hadamard transform (mix_group()) of all that
// share a scale: one large element does not make the steps of its neighbours coarse then, for it is in all of them. The
// transform is linear and its own inverse but for a factor, so attention multiplies mixed keys by mixed queries, adds
// up mixed values and mixes the sum back.
//
// Of int4 one side has a code more, and it is the side of the largest number that uses it. Products of a scale and a
// code are exact in float32.
#pragma once

#include <cstdint>

#include "kernels/entry_format.h"

namespace pkv {

// In place, the Walsh-Hadamard transform of `count` numbers, without a factor: twice it is `count` times the numbers.
// Of a count that is no power of two, one after the other, of as many as the largest power of two that divides it.
constexpr int32_t mixed_at_once(int32_t count) { return count & -count; }
constexpr void mix(float* numbers, int32_t count) {
  for (int32_t reach = 1; reach < mixed_at_once(count); reach *= 2) {
    for (int32_t first = 0; first < count; first += 2 * reach) {
      for (int32_t i = first; i < first + reach; ++i) {
        const float a = numbers[i], b = numbers[i + reach];
        numbers[i] = a + b;
        numbers[i + reach] = a - b;
      }
    }
  }
}

// Elements of a group as they are written; mix() makes them elements again. Factors are powers of two, so exact.
constexpr void mix_group(float* elements, int32_t count) {
  mix(elements, count);
  const float factor = 1.0f / static_cast<float>(mixed_at_once(count));
  for (int32_t i = 0; i < count; ++i) elements[i] *= factor;
}

// Smallest and largest of some numbers, and 0 among them.
struct NumberRange {
  float lowest = 0;
  float highest = 0;

  constexpr void add(float x) {
    lowest = x < lowest ? x : lowest;
    highest = x > highest ? x : highest;
  }
};

// What the numbers' scale is before it is rounded to f16.
constexpr float scale_for(ElementType type, const NumberRange& range) {
  const bool positive = range.highest >= -range.lowest;
  if (type == ElementType::kI4) return (positive ? range.highest : range.lowest) / -8.0f;
  return (positive ? range.highest : -range.lowest) / 127.0f;
}

// The factor that makes codes of numbers: 0 where the scale is.
constexpr float inverse_of(float scale) { return scale == 0.0f ? 0.0f : 1.0f / scale; }

// The whole number nearest to `product`, a number times inverse_of() its scale, ties to even, within the type's codes.
// Neither step may be fused with another or be done in other precision.
constexpr int32_t code_of(ElementType type, float product) {
  const float lowest = type == ElementType::kI4 ? -8.0f : -127.0f, highest = type == ElementType::kI4 ? 7.0f : 127.0f;
  const float inside = product < lowest ? lowest : product > highest ? highest : product;
  constexpr float kRounder = 12582912.0f;  // 1.5 * 2^23: adding it rounds to the nearest integer
  return static_cast<int32_t>((inside + kRounder) - kRounder);
}

}  // namespace pkv
