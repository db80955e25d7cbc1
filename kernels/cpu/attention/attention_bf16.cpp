// Prompt attention with AVX512_BF16: queries, keys, weights and values rounded to bfloat16, sums and softmax in
// float32. A packed 32-bit element holds two neighbouring dimensions (queries, keys) or two neighbouring slots
// (weights, values).
#include <immintrin.h>

#include "kernels/cpu/attention/attention_kernels.h"

namespace pkv {
namespace {

#include "kernels/cpu/attention/attention_avx512.inc"

constexpr int32_t kPanelRows = 12;
constexpr int32_t kPanelVectors = 2;
constexpr int32_t kPanelCols = kPanelVectors * kWidth;

constexpr int32_t min_int(int32_t a, int32_t b) { return a < b ? a : b; }
__m512i bits(__m512bh v) { return reinterpret_cast<__m512i&>(v); }
__m512bh pairs(__m512i v) { return reinterpret_cast<__m512bh&>(v); }

// Lane i holds low[i] and high[i], rounded to bfloat16.
__m512i interleave(Vec low, Vec high) {
  const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21,
                                         5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  return _mm512_permutexvar_epi16(order, bits(_mm512_cvtne2ps_pbh(high, low)));
}

template <typename T>
const T* page_keys(const LanePages& pages, int32_t page) {
  return reinterpret_cast<const T*>(pages.pool + pages.page_ids[page] * pages.page_bytes);
}

// [head_dim / 2][kPanelRows]
void pack_queries(const float* const* rows, int32_t count, int32_t head_dim, float scale, void* out) {
  uint32_t* packed = static_cast<uint32_t*>(out);
  alignas(64) uint32_t dims[16];  // of one row, 16 dimensions in the low 16 words
  for (int32_t r = 0; r < kPanelRows; ++r) {
    for (int32_t k = 0; k < head_dim; k += 16) {
      const int32_t lanes = min_int(16, head_dim - k);
      const Vec q = r < count ? mul(load_part(rows[r] + k, lanes), set1(scale)) : set1(0.0f);
      _mm512_store_si512(dims, bits(_mm512_cvtne2ps_pbh(q, q)));
      for (int32_t i = 0; i < lanes / 2; ++i) packed[(k / 2 + i) * kPanelRows + r] = dims[i];
    }
  }
}

// One vector of slots, all in one panel.
template <typename T>
void pack_whole_keys(const T* keys, int64_t slots, int32_t head_dim, uint32_t* to) {
  for (int32_t k = 0; k < head_dim; k += 2, to += kPanelCols) {
    _mm512_storeu_si512(to, interleave(load(keys + k * slots), load(keys + (k + 1) * slots)));
  }
}

// [ceil(count / kPanelCols)][head_dim / 2][kPanelCols]
template <typename T>
void pack_keys_of(const LanePages& pages, int32_t first, int32_t count, uint32_t* out) {
  const int32_t d = pages.head_dim;
  const int64_t slots = pages.slots;
  int32_t column = 0;
  while (column < count) {
    const int32_t page = (first + column) / pages.slots;
    const int32_t place = (first + column) - page * pages.slots;
    const int32_t lanes = min_int(min_int(kWidth, pages.slots - place), count - column);
    const T* keys = page_keys<T>(pages, page) + place;
    const int32_t inside = column % kPanelCols;
    const int32_t here = min_int(lanes, kPanelCols - inside);  // the rest goes to the next panel
    uint32_t* to = out + static_cast<int64_t>(column / kPanelCols) * (d / 2) * kPanelCols + inside;
    column += lanes;
    if (here == kWidth) {
      pack_whole_keys(keys, slots, d, to);
      continue;
    }
    uint32_t* next = to - inside + static_cast<int64_t>(d / 2) * kPanelCols - here;
    const __mmask16 first_part = first_lanes(here);
    const __mmask16 second_part = static_cast<__mmask16>(first_lanes(lanes) & ~first_part);
    for (int32_t k = 0; k < d; k += 2) {
      const __m512i key = interleave(load_part(keys + k * slots, lanes), load_part(keys + (k + 1) * slots, lanes));
      _mm512_mask_storeu_epi32(to + k / 2 * kPanelCols, first_part, key);
      if (second_part != 0) _mm512_mask_storeu_epi32(next + k / 2 * kPanelCols, second_part, key);
    }
  }
}

template <typename T>
const T* slot_value(const LanePages& pages, int32_t slot) {
  const int32_t page = slot / pages.slots;
  const std::byte* base = pages.pool + pages.page_ids[page] * pages.page_bytes + pages.value_offset;
  return reinterpret_cast<const T*>(base) + static_cast<int64_t>(slot - page * pages.slots) * pages.head_dim;
}

// [ceil(head_dim / kPanelCols)][kTileSlots / 2][kPanelCols]; a last odd slot is paired with zeros.
template <typename T>
void pack_values_of(const LanePages& pages, int32_t first, int32_t count, uint32_t* out) {
  const int32_t d = pages.head_dim;
  for (int32_t i = 0; i < count; i += 2) {
    const T* low = slot_value<T>(pages, first + i);
    const T* high = i + 1 < count ? slot_value<T>(pages, first + i + 1) : nullptr;
    uint32_t* to = out + i / 2 * kPanelCols;
    for (int32_t k = 0; k < d; k += kWidth) {
      const int32_t lanes = min_int(kWidth, d - k);
      const Vec a = lanes == kWidth ? load(low + k) : load_part(low + k, lanes);
      const Vec b = high == nullptr ? set1(0.0f) : lanes == kWidth ? load(high + k) : load_part(high + k, lanes);
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
template <int V>
void dot_block(Vec (&sum)[kPanelRows][V], const uint32_t* a, int32_t a_stride, int32_t a_step, const uint32_t* b,
               int32_t depth) {
  for (int32_t k = 0; k < depth; ++k, a += a_step, b += kPanelCols) {
    __m512bh column[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) column[v] = pairs(_mm512_loadu_si512(b + v * kWidth));
#pragma GCC unroll 16
    for (int r = 0; r < kPanelRows; ++r) {
      const __m512bh row = pairs(_mm512_set1_epi32(static_cast<int32_t>(a[r * a_stride])));
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) sum[r][v] = _mm512_dpbf16_ps(sum[r][v], row, column[v]);
    }
  }
}

void score_panel(const Panel& panel) {
  const int32_t depth = panel.head_dim / 2;
  const uint32_t* keys = static_cast<const uint32_t*>(panel.keys);
  for (int32_t column = 0; column < panel.count;
       column += kPanelCols, keys += static_cast<int64_t>(depth) * kPanelCols) {
    Vec sum[kPanelRows][kPanelVectors];
#pragma GCC unroll 16
    for (int r = 0; r < kPanelRows; ++r) sum[r][0] = sum[r][1] = set1(0.0f);
    dot_block<kPanelVectors>(sum, static_cast<const uint32_t*>(panel.queries), 1, kPanelRows, keys, depth);
#pragma GCC unroll 16
    for (int r = 0; r < kPanelRows; ++r) {
      store(panel.scores + r * kScoreStride + column, sum[r][0]);
      store(panel.scores + r * kScoreStride + column + kWidth, sum[r][1]);
    }
  }
}

template <int V>
void value_block(const uint32_t* weights, const uint32_t* values, int32_t depth, const float* keep, float* acc,
                 int32_t stride) {
  Vec sum[kPanelRows][V];
#pragma GCC unroll 16
  for (int r = 0; r < kPanelRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) sum[r][v] = mul(load(acc + r * stride + v * kWidth), set1(keep[r]));
  }
  dot_block<V>(sum, weights, kScoreStride / 2, 1, values, depth);
#pragma GCC unroll 16
  for (int r = 0; r < kPanelRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) store(acc + r * stride + v * kWidth, sum[r][v]);
  }
}

// Scores [0, limit) to bfloat16 weights [0, limit rounded up to 32), the rest of them 0. Updates the row's running
// maximum and sum and returns the factor for what was summed before.
float soften_row(float* scores, int32_t limit, float* top, float* sum, uint16_t* weights) {
  const int32_t end = (limit + 31) / 32 * 32;
  for (int32_t j = limit; j < end; ++j) scores[j] = -__builtin_huge_valf();
  Vec high[2] = {set1(*top), set1(*top)};
  for (int32_t j = 0; j < end; j += 32) {
    high[0] = max(high[0], load(scores + j));
    high[1] = max(high[1], load(scores + j + 16));
  }
  const float next = reduce_max(max(high[0], high[1]));
  const Vec shift = set1(next);
  Vec total[2] = {set1(0.0f), set1(0.0f)};
  for (int32_t j = 0; j < end; j += 32) {
    const Vec a = exp2(sub(load(scores + j), shift));
    const Vec b = exp2(sub(load(scores + j + 16), shift));
    total[0] = add(total[0], a);
    total[1] = add(total[1], b);
    _mm512_storeu_si512(weights + j, bits(_mm512_cvtne2ps_pbh(b, a)));
  }
  const float keep = _mm512_cvtss_f32(exp2(sub(set1(*top), shift)));
  *sum = *sum * keep + reduce_add(add(total[0], total[1]));
  *top = next;
  return keep;
}

void attend_panel(const Panel& panel, const PanelState& state) {
  score_panel(panel);
  float keep[kPanelRows];
  uint16_t* weights = reinterpret_cast<uint16_t*>(panel.scores + kMaxPanelRows * kScoreStride);
  const int32_t columns = (panel.count + 31) / 32 * 32;
  for (int32_t r = 0; r < kPanelRows; ++r) {
    const int32_t limit = panel.limits[r];
    keep[r] = 1.0f;
    if (limit > 0) {
      keep[r] =
          soften_row(panel.scores + r * kScoreStride, limit, state.max + r, state.sum + r, weights + r * kScoreStride);
    }
    for (int32_t j = (limit + 31) / 32 * 32; j < columns; j += 32) {
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

constinit const PanelKernels kPanelAvx512Bf16 = {kPanelRows, 2, pack_queries, pack_keys, pack_values, attend_panel};

}  // namespace pkv
