// Prompt attention with AVX512_BF16: queries, keys, weights and values rounded to bfloat16, sums and softmax in
// float32.
#include "kernels/cpu/attention/bf16_panels.h"
#include "kernels/cpu/attention/observe_kernels.h"
#include "kernels/cpu/attention/softmax.h"

namespace pkv {
namespace {

constexpr int32_t kPanelRows = 12;

// [head_dim / 2][kPanelRows]
void pack_queries(const float* const* rows, int32_t count, int32_t head_dim, float scale, void* out) {
  uint32_t* packed = static_cast<uint32_t*>(out);
  alignas(64) uint32_t pairs_of_row[16];  // of one row, 16 dimensions in the low 16 words
  for (int32_t r = 0; r < kPanelRows; ++r) {
    for (int32_t k = 0; k < head_dim; k += 16) {
      const int32_t dims = min_int(V::kWidth, head_dim - k);
      const V::Type q = r < count ? V::load_first(rows[r] + k, dims) * V::broadcast(scale) : V::broadcast(0.0f);
      _mm512_store_si512(pairs_of_row, bits(_mm512_cvtne2ps_pbh(q, q)));
      for (int32_t i = 0; i < dims / 2; ++i) packed[(k / 2 + i) * kPanelRows + r] = pairs_of_row[i];
    }
  }
}

// sum[r][v] += a[r * a_stride] . b[v], `depth` pairs deep; a steps by a_step and b by kPanelCols.
template <int N>
void dot_block(V::Type (&sum)[kPanelRows][N], const uint32_t* a, int32_t a_stride, int32_t a_step, const uint32_t* b,
               int32_t depth) {
  for (int32_t k = 0; k < depth; ++k, a += a_step, b += kPanelCols) {
    __m512bh column[N];
#pragma GCC unroll 4
    for (int v = 0; v < N; ++v) column[v] = pairs(_mm512_loadu_si512(b + v * V::kWidth));
#pragma GCC unroll 16
    for (int r = 0; r < kPanelRows; ++r) {
      const __m512bh row = pairs(_mm512_set1_epi32(static_cast<int32_t>(a[r * a_stride])));
#pragma GCC unroll 4
      for (int v = 0; v < N; ++v) sum[r][v] = _mm512_dpbf16_ps(sum[r][v], row, column[v]);
    }
  }
}

// sum[r] += the scores of kPanelCols columns from `column` on.
inline void score_columns(const Panel& panel, int32_t column, V::Type (&sum)[kPanelRows][kPanelVectors]) {
  const int32_t depth = panel.head_dim / 2;
  const uint32_t* keys = static_cast<const uint32_t*>(panel.keys) + static_cast<int64_t>(column) * depth;
  dot_block<kPanelVectors>(sum, static_cast<const uint32_t*>(panel.queries), 1, kPanelRows, keys, depth);
}

void score_panel(const Panel& panel) {
  for (int32_t column = 0; column < panel.count; column += kPanelCols) {
    V::Type sum[kPanelRows][kPanelVectors];
#pragma GCC unroll 16
    for (int r = 0; r < kPanelRows; ++r) sum[r][0] = sum[r][1] = V::broadcast(0.0f);
    score_columns(panel, column, sum);
#pragma GCC unroll 16
    for (int r = 0; r < kPanelRows; ++r) {
      V::store(panel.scores + r * kScoreStride + column, sum[r][0]);
      V::store(panel.scores + r * kScoreStride + column + V::kWidth, sum[r][1]);
    }
  }
}

template <int N>
void value_block(const uint32_t* weights, const uint32_t* values, int32_t depth, const float* keep, float* acc,
                 int32_t stride) {
  V::Type sum[kPanelRows][N];
#pragma GCC unroll 16
  for (int r = 0; r < kPanelRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < N; ++v) sum[r][v] = V::load(acc + r * stride + v * V::kWidth) * V::broadcast(keep[r]);
  }
  dot_block<N>(sum, weights, kScoreStride / 2, 1, values, depth);
#pragma GCC unroll 16
  for (int r = 0; r < kPanelRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < N; ++v) V::store(acc + r * stride + v * V::kWidth, sum[r][v]);
  }
}

void attend_panel(const Panel& panel, const PanelState& state) {
  score_panel(panel);
  float keep[kPanelRows];
  uint16_t* weights = reinterpret_cast<uint16_t*>(panel.scores + kMaxPanelRows * kScoreStride);
  const int32_t columns = whole_blocks(panel.count);
  for (int32_t r = 0; r < kPanelRows; ++r) {
    const int32_t limit = panel.limits[r];
    keep[r] = 1.0f;
    if (limit > 0) {
      uint16_t* row = weights + r * kScoreStride;
      keep[r] = online_softmax(
          panel.scores + r * kScoreStride, limit, state.max + r, state.sum + r,
          [row](int32_t j, V::Type a, V::Type b) { _mm512_storeu_si512(row + j, bits(_mm512_cvtne2ps_pbh(b, a))); });
    }
    for (int32_t j = whole_blocks(limit); j < columns; j += kSoftmaxBlock) {
      _mm512_storeu_si512(weights + r * kScoreStride + j, _mm512_setzero_si512());
    }
  }
  const uint32_t* pairs_of_weights = reinterpret_cast<const uint32_t*>(weights);
  const uint32_t* values = static_cast<const uint32_t*>(panel.values);
  const int32_t stride = padded_dim(panel.head_dim);
  const int32_t depth = (panel.count + 1) / 2;
  int32_t dim = 0;
  for (; dim + kPanelCols <= stride; dim += kPanelCols, values += kTileSlots / 2 * kPanelCols) {
    value_block<kPanelVectors>(pairs_of_weights, values, depth, keep, state.acc + dim, stride);
  }
  if (dim < stride) value_block<1>(pairs_of_weights, values, depth, keep, state.acc + dim, stride);
}

// A block of columns at a time, whose scores, less the rows' lse, stay in registers.
void mass_panel(const Panel& panel, const PanelMass& mass) {
  for (int32_t column = 0; column < panel.count; column += kPanelCols) {
    V::Type sum[kPanelRows][kPanelVectors];
#pragma GCC unroll 16
    for (int r = 0; r < kPanelRows; ++r) sum[r][0] = sum[r][1] = V::broadcast(-mass.lse[r]);
    score_columns(panel, column, sum);
#pragma GCC unroll 16
    for (int r = 0; r < kPanelRows; ++r) {
      const int32_t count = min_int(panel.limits[r] - column, kPanelCols);
      if (count <= 0) continue;
      float* sums = mass.sums[r] + column;
      if (count == kPanelCols && mass.squares == nullptr) {
        V::store(sums, V::load(sums) + exp2(sum[r][0]));
        V::store(sums + V::kWidth, V::load(sums + V::kWidth) + exp2(sum[r][1]));
        continue;
      }
      alignas(64) float scores[kPanelCols];
      V::store(scores, sum[r][0]);
      V::store(scores + V::kWidth, sum[r][1]);
      add_row(scores, count, sums, mass.squares == nullptr ? nullptr : mass.squares[r] + column,
              [](V::Type score) { return exp2(score); });
    }
  }
}

}  // namespace

template <>
constinit const PanelKernels PathTable<PanelKernels, Isa::kAvx512Bf16>::kernels = {
    .rows = kPanelRows,
    .element_bytes = 2,
    .pack_queries = pack_queries,
    .pack_keys = pack_keys<2>,
    .pack_values = pack_values<2>,
    .attend = attend_panel,
    .lse = lse_panel<kPanelRows, score_panel>,
    .mass = mass_panel,
    .add_weights = add_weights<kPanelRows>};

}  // namespace pkv
