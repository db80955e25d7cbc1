// How far off sums are whose numbers were rounded to bfloat16, as tolerances need it.
#pragma once

#include <cmath>
#include <cstdint>

namespace pkv {

constexpr double kBf16Deviation =
    0x1p-8 / 3.46;  // of a number rounded to bfloat16, in parts of it: half of what it is at most

// Of a . b where both are rounded: the errors of different products are independent.
inline double rounded_dot_deviation(const float* a, const float* b, int64_t count) {
  double squares = 0;
  for (int64_t i = 0; i < count; ++i) {
    const double product = static_cast<double>(a[i]) * b[i];
    squares += product * product;
  }
  return kBf16Deviation * std::sqrt(2 * squares);
}

}  // namespace pkv
