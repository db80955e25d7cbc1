// 8-bit products of packed panels and quantised rows, all but the dot products of a group: those differ by instruction
// set. For sources that are compiled once per set (vec.h).
#pragma once

#include <cstdint>

#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/linear/panel_scales.h"

namespace pkv {
namespace {

// Groups are 16 or 32 inputs.
void quantize_row(const float* x, const PackedView& weight, int32_t row, const Int8Rows& to) {
  int8_t* codes = to.codes + row * to.code_stride;
  const int64_t groups = weight.cols / weight.group;
  for (int64_t group = 0; group < groups; ++group) {
    const float* from = x + group * weight.group;
    int8_t* out = codes + group * weight.group;
    V::Type magnitude = V::broadcast(0.0f);
    for (int32_t i = 0; i < weight.group; i += V::kWidth) {
      const V::Type values = V::load(from + i);
      magnitude = V::max(magnitude, V::max(values, -values));
    }
    const float largest = V::largest(magnitude);
    const V::Type inverse = V::broadcast(largest > 0 ? 127.0f / largest : 0.0f);
    I::Type total = I::broadcast(0);
    for (int32_t i = 0; i < weight.group; i += V::kWidth) {
      const I::Type code = V::to_int(V::load(from + i) * inverse);
      I::store_i8(out + i, code);
      total = I::add(total, code);
    }
    const int32_t sum = I::sum(total);
    const int64_t at = row * to.group_stride + group;
    to.scales[at] = largest / 127.0f;
    to.scaled_sums[at] = to.scales[at] * static_cast<float>(sum);
    to.corrections[at] = -weight.zero_point * sum;
  }
}

// Rows of a group: codes of row r at codes + r * stride, its correction at corrections[r * correction_stride].
struct GroupRows {
  const int8_t* codes;
  int64_t stride;
  const int32_t* corrections;
  int64_t correction_stride;
};

// Dots::nibbles<kRows>(codes, rows, dots) and Dots::bytes<kRows>(codes, weight, rows, dots) set dots[r][part] to the
// dot products of a group's codes, less the zero point, with the rows'.
template <typename Dots, int kRows>
void multiply_panel(const PackedView& weight, int64_t panel, const Int8Rows& x, int32_t row, bool accumulate,
                    float* out, int64_t out_stride) {
  const uint8_t* codes = weight.codes + panel * weight.panel_code_bytes;
  const uint8_t* scales = weight.scales + panel * weight.panel_scale_bytes;
  const bool nibbles = weight.code_kind == CodeKind::kNibble;
  const bool has_min = weight.zero_point == 0;
  const int64_t group_bytes = weight.group * kPanelOutputs / (nibbles ? 2 : 1);
  const int64_t groups = weight.cols / weight.group;
  V::Type sums[kRows][kParts];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int p = 0; p < kParts; ++p) sums[r][p] = V::broadcast(0.0f);
  }
  for (int64_t group = 0; group < groups; ++group, codes += group_bytes) {
    const int64_t at = row * x.group_stride + group;
    const GroupRows rows{.codes = x.codes + row * x.code_stride + group * weight.group,
                         .stride = x.code_stride,
                         .corrections = x.corrections + at,
                         .correction_stride = x.group_stride};
    I::Type dots[kRows][kParts];
    if (nibbles) {
      Dots::template nibbles<kRows>(codes, rows, dots);
    } else {
      Dots::template bytes<kRows>(codes, weight, rows, dots);
    }
    const GroupScales s = load_scales(weight, scales, group);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const V::Type scale = V::broadcast(x.scales[at + r * x.group_stride]);
#pragma GCC unroll 4
      for (int p = 0; p < kParts; ++p) sums[r][p] = V::fma(I::to_float(dots[r][p]), s.scale[p] * scale, sums[r][p]);
      if (!has_min) continue;
      const V::Type sum = V::broadcast(x.scaled_sums[at + r * x.group_stride]);
#pragma GCC unroll 4
      for (int p = 0; p < kParts; ++p) sums[r][p] = V::fma(s.min[p], sum, sums[r][p]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int p = 0; p < kParts; ++p) {
      const int64_t output = panel * kPanelOutputs + p * V::kWidth;
      store_outputs(sums[r][p], weight.rows - output, accumulate, out + (row + r) * out_stride + output);
    }
  }
}

// Rows in blocks of the given sizes.
template <typename Dots, int... kRowBlocks>
void multiply_panels(const PackedView& weight, int64_t first, int64_t last, const Int8Rows& x, bool accumulate,
                     float* out, int64_t out_stride) {
  for (int64_t panel = first; panel < last; ++panel) {
    in_row_blocks<kRowBlocks...>(x.rows, [&]<int kRows>(int32_t row) {
      multiply_panel<Dots, kRows>(weight, panel, x, row, accumulate, out, out_stride);
    });
  }
}

}  // namespace
}  // namespace pkv
