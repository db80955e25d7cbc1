// Vectors over the outputs of a packed panel, and its scales decoded into them. For sources that are compiled once per
// instruction set (vec.h).
#pragma once

#include <cstdint>

#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/linear/scale_layout.h"
#include "kernels/cpu/vec.h"

namespace pkv {
namespace {

using V = Vec<float>;
using I = Vec<int32_t>;

constexpr int32_t kParts = kPanelOutputs / V::kWidth;  // vectors that hold a panel's outputs

// The scales of one group: weight = scale * code + min.
struct GroupScales {
  V::Type scale[kParts];
  V::Type min[kParts];
};

inline V::Type load_halves(const uint8_t* from, int32_t part) {
  return V::load(reinterpret_cast<const uint16_t*>(from) + part * V::kWidth);
}
inline V::Type load_u8(const uint8_t* from, int32_t part) { return I::to_float(I::load_u8(from + part * V::kWidth)); }
inline V::Type load_i8(const uint8_t* from, int32_t part) { return I::to_float(I::load_i8(from + part * V::kWidth)); }

// `scales`: of the panel.
inline GroupScales load_scales(const PackedView& weight, const uint8_t* scales, int64_t group) {
  const V::Type negative_zero_point = V::broadcast(-static_cast<float>(weight.zero_point));
  GroupScales s;
#pragma GCC unroll 4
  for (int p = 0; p < kParts; ++p) {
    switch (weight.scale_kind) {
      case ScaleKind::kHalfMin: {
        using Layout = ScaleLayout<ScaleKind::kHalfMin>;
        const uint8_t* block = scales + group * Layout::kBytes;
        s.scale[p] = load_halves(block + Layout::kScale, p);
        s.min[p] = load_halves(block + Layout::kMin, p);
        break;
      }
      case ScaleKind::kSuperMin: {
        using Layout = ScaleLayout<ScaleKind::kSuperMin>;
        const uint8_t* block = scales + group / Layout::kGroups * Layout::kBytes;
        const int64_t place = group % Layout::kGroups * kPanelBytes;
        s.scale[p] = load_halves(block + Layout::kScale, p) * load_u8(block + Layout::kGroupScales + place, p);
        s.min[p] = -(load_halves(block + Layout::kMin, p) * load_u8(block + Layout::kGroupMins + place, p));
        break;
      }
      case ScaleKind::kSuperSigned: {
        using Layout = ScaleLayout<ScaleKind::kSuperSigned>;
        const uint8_t* block = scales + group / Layout::kGroups * Layout::kBytes;
        const int64_t place = group % Layout::kGroups * kPanelBytes;
        s.scale[p] = load_halves(block + Layout::kScale, p) * load_i8(block + Layout::kGroupScales + place, p);
        s.min[p] = s.scale[p] * negative_zero_point;
        break;
      }
      default:
        s.scale[p] = load_halves(scales + group * ScaleLayout<ScaleKind::kHalf>::kBytes, p);
        s.min[p] = s.scale[p] * negative_zero_point;
    }
  }
  return s;
}

// Adds a vector of sums to out, or stores it; `cols` of its outputs there are, perhaps none.
inline void store_outputs(V::Type sums, int64_t cols, bool accumulate, float* out) {
  if (cols >= V::kWidth) {
    V::store(out, accumulate ? V::load(out) + sums : sums);
    return;
  }
  float values[V::kWidth];
  V::store(values, sums);
  for (int64_t o = 0; o < cols; ++o) out[o] = accumulate ? out[o] + values[o] : values[o];
}

// Calls block<n>(row) for consecutive blocks of rows, n of the given sizes, largest first.
template <int kFirst, int... kSmaller, typename Block>
void in_row_blocks(int32_t rows, const Block& block, int32_t row = 0) {
  for (; row + kFirst <= rows; row += kFirst) block.template operator()<kFirst>(row);
  if constexpr (sizeof...(kSmaller) > 0) in_row_blocks<kSmaller...>(rows, block, row);
}

}  // namespace
}  // namespace pkv
