// Panels of query rows against packed tiles: prompt attention and observation, float32. Compiled once per instruction
// set (vec.h).
#pragma once

#include <cstdint>

#include "kernels/cpu/attention/attention_kernels.h"
#include "kernels/cpu/attention/lane_pages.h"
#include "kernels/cpu/attention/observe_kernels.h"
#include "kernels/cpu/attention/softmax.h"
#include "kernels/cpu/vec.h"

namespace pkv {
namespace {

using V = Vec<float>;

#if defined(PKV_ISA_AVX512)
constexpr int32_t kPanelRows = 12;
#elif defined(PKV_ISA_AVX2)
constexpr int32_t kPanelRows = 6;
#else
constexpr int32_t kPanelRows = 4;
#endif
constexpr int32_t kPanelVectors = 2;
constexpr int32_t kPanelCols = kPanelVectors * V::kWidth;

// [head_dim][kPanelRows]
void pack_queries(const float* const* rows, int32_t count, int32_t head_dim, float scale, void* out) {
  float* packed = static_cast<float*>(out);
  for (int32_t r = 0; r < kPanelRows; ++r) {
    for (int32_t k = 0; k < head_dim; ++k) packed[k * kPanelRows + r] = r < count ? rows[r][k] * scale : 0.0f;
  }
}

// [ceil(count / kPanelCols)][head_dim][kPanelCols]
template <typename T>
void pack_keys_of(const LanePages& pages, int32_t first, int32_t count, float* out) {
  const int32_t d = pages.head_dim;
  for_each_columns<T>(pages, first, count, [&](const KeyColumns<T>& keys, int32_t column) {
    const int32_t width = keys.width;
    const int32_t inside = column % kPanelCols;
    float* to = out + static_cast<int64_t>(column / kPanelCols) * d * kPanelCols + inside;
    if (width == V::kWidth && inside + V::kWidth <= kPanelCols) {
      for (int32_t k = 0; k < d; ++k) V::store(to + k * kPanelCols, keys.load(k));
    } else {
      const int32_t here = min_int(width, kPanelCols - inside);  // the rest goes to the next panel
      float* next = to - inside + static_cast<int64_t>(d) * kPanelCols - here;
      for (int32_t k = 0; k < d; ++k) {
        const V::Type key = keys.load_first(k);
        V::store_range(to + k * kPanelCols, key, 0, here);
        if (here < width) V::store_range(next + k * kPanelCols, key, here, width);
      }
    }
  });
}

// [ceil(head_dim / kPanelCols)][kTileSlots][kPanelCols]
template <typename T>
void pack_values_of(const LanePages& pages, int32_t first, int32_t count, float* out) {
  const int32_t d = pages.head_dim;
  for (int32_t i = 0; i < count; ++i) {
    SlotValue<T> value(pages, first + i);
    float* to = out + i * kPanelCols;
    for (int32_t k = 0; k < d; k += kPanelCols, to += kTileSlots * kPanelCols) {
#pragma GCC unroll 4
      for (int32_t v = 0; v < kPanelVectors; ++v) {
        const int32_t dims = min_int(V::kWidth, d - k - v * V::kWidth);
        if (dims > 0) V::store(to + v * V::kWidth, value.load(k + v * V::kWidth, dims));
      }
    }
  }
}

void pack_keys(const LanePages& pages, int32_t first, int32_t count, int32_t place, void* out) {
  float* to = static_cast<float*>(out) + static_cast<int64_t>(place) * pages.head_dim;
  with_elements(pages.format,
                [&](auto elements) { pack_keys_of<typename decltype(elements)::Key>(pages, first, count, to); });
}

void pack_values(const LanePages& pages, int32_t first, int32_t count, int32_t place, void* out) {
  float* to = static_cast<float*>(out) + place * kPanelCols;
  with_elements(pages.format,
                [&](auto elements) { pack_values_of<typename decltype(elements)::Value>(pages, first, count, to); });
}

// scores [kPanelRows][kScoreStride] of the first R rows, columns [0, count rounded up to kPanelCols)
template <int R>
void score_rows(const Panel& panel) {
  const int32_t d = panel.head_dim;
  const float* keys = static_cast<const float*>(panel.keys);
  for (int32_t column = 0; column < panel.count; column += kPanelCols, keys += static_cast<int64_t>(d) * kPanelCols) {
    const float* q = static_cast<const float*>(panel.queries);
    const float* key = keys;
    V::Type sum[R][kPanelVectors];
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < kPanelVectors; ++v) sum[r][v] = V::broadcast(0.0f);
    }
    for (int32_t k = 0; k < d; ++k, q += kPanelRows, key += kPanelCols) {
      V::Type b[kPanelVectors];
#pragma GCC unroll 4
      for (int v = 0; v < kPanelVectors; ++v) b[v] = V::load(key + v * V::kWidth);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        const V::Type a = V::broadcast(q[r]);
#pragma GCC unroll 4
        for (int v = 0; v < kPanelVectors; ++v) sum[r][v] = V::fma(a, b[v], sum[r][v]);
      }
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < kPanelVectors; ++v)
        V::store(panel.scores + r * kScoreStride + column + v * V::kWidth, sum[r][v]);
    }
  }
}

// Scores of at least the rows that see something. A row's sums are the same whoever shares its panel.
void score_panel(const Panel& panel) {
  constexpr int kFewRows = 4;  // the heads of one token's group
  int32_t rows = kPanelRows;
  while (rows > 0 && panel.limits[rows - 1] == 0) --rows;
  rows > kFewRows ? score_rows<kPanelRows>(panel) : score_rows<kFewRows>(panel);
}

// acc[r][0 .. N * V::kWidth) = acc * keep[r] + sum over slots of weights[r][slot] * values[slot]
template <int N>
void value_block(const float* weights, const float* values, int32_t count, const float* keep, float* acc,
                 int32_t stride) {
  V::Type sum[kPanelRows][N];
#pragma GCC unroll 16
  for (int r = 0; r < kPanelRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < N; ++v) sum[r][v] = V::load(acc + r * stride + v * V::kWidth) * V::broadcast(keep[r]);
  }
  for (int32_t s = 0; s < count; ++s, values += kPanelCols) {
    V::Type b[N];
#pragma GCC unroll 4
    for (int v = 0; v < N; ++v) b[v] = V::load(values + v * V::kWidth);
#pragma GCC unroll 16
    for (int r = 0; r < kPanelRows; ++r) {
      const V::Type a = V::broadcast(weights[r * kScoreStride + s]);
#pragma GCC unroll 4
      for (int v = 0; v < N; ++v) sum[r][v] = V::fma(a, b[v], sum[r][v]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < kPanelRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < N; ++v) V::store(acc + r * stride + v * V::kWidth, sum[r][v]);
  }
}

void attend_panel(const Panel& panel, const PanelState& state) {
  score_panel(panel);
  float keep[kPanelRows];
  const int32_t columns = round_up(panel.count, V::kWidth);
  for (int32_t r = 0; r < kPanelRows; ++r) {
    float* scores = panel.scores + r * kScoreStride;
    const int32_t limit = panel.limits[r];
    int32_t done = 0;
    keep[r] = 1.0f;
    if (limit > 0) {
      keep[r] = online_softmax(scores, limit, state.max + r, state.sum + r, [scores](int32_t j, V::Type a, V::Type b) {
        V::store(scores + j, a);
        V::store(scores + j + V::kWidth, b);
      });
      done = whole_blocks(limit);
    }
    for (int32_t j = done; j < columns; j += V::kWidth) V::store(scores + j, V::broadcast(0.0f));
  }
  const float* values = static_cast<const float*>(panel.values);
  const int32_t stride = padded_dim(panel.head_dim);
  int32_t dim = 0;
  for (; dim + kPanelCols <= stride; dim += kPanelCols, values += kTileSlots * kPanelCols) {
    value_block<kPanelVectors>(panel.scores, values, panel.count, keep, state.acc + dim, stride);
  }
  for (; dim < stride; dim += V::kWidth, values += V::kWidth) {
    value_block<1>(panel.scores, values, panel.count, keep, state.acc + dim, stride);
  }
}

}  // namespace
}  // namespace pkv
