// Prompt attention with AVX512_BF16: queries, keys, weights and values rounded to bfloat16, sums and softmax in
// float32. A packed 32-bit element holds two neighbouring dimensions (queries, keys) or two neighbouring slots
// (weights, values).
#include <immintrin.h>

#include "kernels/cpu/attention/attention_kernels.h"
#include "kernels/cpu/attention/lane_pages.h"
#include "kernels/cpu/attention/softmax.h"
#include "kernels/cpu/vec.h"

namespace pkv {
namespace {

using V = Vec<float>;

constexpr int32_t kPanelRows = 12;
constexpr int32_t kPanelVectors = 2;
constexpr int32_t kPanelCols = kPanelVectors * V::kWidth;

__m512i bits(__m512bh v) { return reinterpret_cast<__m512i&>(v); }
__m512bh pairs(__m512i v) { return reinterpret_cast<__m512bh&>(v); }

// Element i holds low[i] and high[i], rounded to bfloat16.
__m512i interleave(V::Type low, V::Type high) {
  const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21,
                                         5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  return _mm512_permutexvar_epi16(order, bits(_mm512_cvtne2ps_pbh(high, low)));
}

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

// One vector of slots, all in one panel.
template <typename T>
void pack_whole_keys(const KeyColumns<T>& keys, int32_t head_dim, uint32_t* to) {
  for (int32_t k = 0; k < head_dim; k += 2, to += kPanelCols) {
    _mm512_storeu_si512(to, interleave(keys.load(k), keys.load(k + 1)));
  }
}

// [ceil(count / kPanelCols)][head_dim / 2][kPanelCols]
template <typename T>
void pack_keys_of(const LanePages& pages, int32_t first, int32_t count, uint32_t* out) {
  const int32_t d = pages.head_dim;
  int32_t column = 0;
  while (column < count) {
    const int32_t page = (first + column) / pages.slots;
    const int32_t place = (first + column) - page * pages.slots;
    const int32_t width = min_int(min_int(V::kWidth, pages.slots - place), count - column);
    const KeyColumns<T> keys(pages, page, place, width);
    const int32_t inside = column % kPanelCols;
    const int32_t here = min_int(width, kPanelCols - inside);  // the rest goes to the next panel
    uint32_t* to = out + static_cast<int64_t>(column / kPanelCols) * (d / 2) * kPanelCols + inside;
    column += width;
    if (here == V::kWidth) {
      pack_whole_keys(keys, d, to);
      continue;
    }
    uint32_t* next = to - inside + static_cast<int64_t>(d / 2) * kPanelCols - here;
    const __mmask16 first_part = V::first_mask(here);
    const __mmask16 second_part = static_cast<__mmask16>(V::first_mask(width) & ~first_part);
    for (int32_t k = 0; k < d; k += 2) {
      const __m512i key = interleave(keys.load_first(k), keys.load_first(k + 1));
      _mm512_mask_storeu_epi32(to + k / 2 * kPanelCols, first_part, key);
      if (second_part != 0) _mm512_mask_storeu_epi32(next + k / 2 * kPanelCols, second_part, key);
    }
  }
}

// [ceil(head_dim / kPanelCols)][kTileSlots / 2][kPanelCols]; a last odd slot is paired with zeros.
template <typename T>
void pack_values_of(const LanePages& pages, int32_t first, int32_t count, uint32_t* out) {
  const int32_t d = pages.head_dim;
  for (int32_t i = 0; i < count; i += 2) {
    const bool paired = i + 1 < count;
    SlotValue<T> low(pages, first + i), high(pages, first + i + (paired ? 1 : 0));
    uint32_t* to = out + i / 2 * kPanelCols;
    for (int32_t k = 0; k < d; k += V::kWidth) {
      const int32_t dims = min_int(V::kWidth, d - k);
      const V::Type a = low.load(k, dims), b = paired ? high.load(k, dims) : V::broadcast(0.0f);
      uint32_t* panel = to + static_cast<int64_t>(k / kPanelCols) * (kTileSlots / 2) * kPanelCols;
      _mm512_storeu_si512(panel + k % kPanelCols, interleave(a, b));
    }
  }
}

void pack_keys(const LanePages& pages, int32_t first, int32_t count, void* out) {
  with_elements(pages.format, [&](auto elements) {
    pack_keys_of<typename decltype(elements)::Key>(pages, first, count, static_cast<uint32_t*>(out));
  });
}

void pack_values(const LanePages& pages, int32_t first, int32_t count, void* out) {
  with_elements(pages.format, [&](auto elements) {
    pack_values_of<typename decltype(elements)::Value>(pages, first, count, static_cast<uint32_t*>(out));
  });
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

void score_panel(const Panel& panel) {
  const int32_t depth = panel.head_dim / 2;
  const uint32_t* keys = static_cast<const uint32_t*>(panel.keys);
  for (int32_t column = 0; column < panel.count;
       column += kPanelCols, keys += static_cast<int64_t>(depth) * kPanelCols) {
    V::Type sum[kPanelRows][kPanelVectors];
#pragma GCC unroll 16
    for (int r = 0; r < kPanelRows; ++r) sum[r][0] = sum[r][1] = V::broadcast(0.0f);
    dot_block<kPanelVectors>(sum, static_cast<const uint32_t*>(panel.queries), 1, kPanelRows, keys, depth);
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

}  // namespace

template <>
constinit const PanelKernels PathTable<PanelKernels, Isa::kAvx512Bf16>::kernels = {.rows = kPanelRows,
                                                                                   .element_bytes = 2,
                                                                                   .pack_queries = pack_queries,
                                                                                   .pack_keys = pack_keys,
                                                                                   .pack_values = pack_values,
                                                                                   .attend = attend_panel};

}  // namespace pkv
