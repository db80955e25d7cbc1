// Lengths of values times a lower triangular factor, for kernels that are compiled once per instruction set (vec.h).
#pragma once

#include <cstdint>

#include "kernels/cpu/vec.h"

namespace pkv {
namespace {

// Values that share a load of the factor.
constexpr int32_t kFactorRows = 8;

// Columns [c, c + width) from row c down, padded with zeros to a vector's width; above the diagonal zeros.
void pack_factor(const float* factor, int64_t stride, int32_t head_dim, float* packed) {
  constexpr int32_t kWidth = Vec<float>::kWidth;
  for (int32_t first = 0; first < head_dim; first += kWidth) {
    for (int32_t row = first; row < head_dim; ++row) {
      for (int32_t column = first; column < first + kWidth; ++column) {
        *packed++ = column <= row ? factor[row * stride + column] : 0.0f;
      }
    }
  }
}

// A value's length is summed alike however many are beside it.
template <int32_t kRows>
void factor_norms_of(const float* values, const float* packed, int32_t head_dim, float* norms) {
  using Floats = Vec<float>;
  typename Floats::Type squares[kRows];
  for (int32_t i = 0; i < kRows; ++i) squares[i] = Floats::broadcast(0.0f);
  for (int32_t first = 0; first < head_dim; first += Floats::kWidth) {
    typename Floats::Type products[kRows];
    for (int32_t i = 0; i < kRows; ++i) products[i] = Floats::broadcast(0.0f);
    for (int32_t row = first; row < head_dim; ++row, packed += Floats::kWidth) {
      const auto columns = Floats::load(packed);
      for (int32_t i = 0; i < kRows; ++i) {
        products[i] = Floats::fma(Floats::broadcast(values[i * head_dim + row]), columns, products[i]);
      }
    }
    for (int32_t i = 0; i < kRows; ++i) squares[i] = Floats::fma(products[i], products[i], squares[i]);
  }
  for (int32_t i = 0; i < kRows; ++i) norms[i] = __builtin_sqrtf(Floats::sum(squares[i]));
}

void factor_norms(const float* values, int32_t count, const float* packed, int32_t head_dim, float* norms) {
  int32_t j = 0;
  for (; j + kFactorRows <= count; j += kFactorRows) {
    factor_norms_of<kFactorRows>(values + int64_t{j} * head_dim, packed, head_dim, norms + j);
  }
  for (; j < count; ++j) factor_norms_of<1>(values + int64_t{j} * head_dim, packed, head_dim, norms + j);
}

}  // namespace
}  // namespace pkv
