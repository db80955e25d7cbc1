// Keys and values of a tile packed to pairs of bfloat16, for prompt attention. A 32-bit element holds two neighbouring
// dimensions (keys) or two neighbouring slots (values); dimensions of keys and slots of values are padded with zeros to
// a multiple of kMultiple. For sources that are compiled for AVX512_BF16.
#pragma once

#include <immintrin.h>

#include "kernels/cpu/attention/attention_kernels.h"
#include "kernels/cpu/attention/lane_pages.h"
#include "kernels/cpu/vec.h"

namespace pkv {
namespace {

using V = Vec<float>;

constexpr int32_t kPanelVectors = 2;
constexpr int32_t kPanelCols = kPanelVectors * V::kWidth;

inline __m512i bits(__m512bh v) { return reinterpret_cast<__m512i&>(v); }
inline __m512bh pairs(__m512i v) { return reinterpret_cast<__m512bh&>(v); }

// Element i holds low[i] and high[i], rounded to bfloat16.
inline __m512i interleave(V::Type low, V::Type high) {
  const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21,
                                         5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  return _mm512_permutexvar_epi16(order, bits(_mm512_cvtne2ps_pbh(high, low)));
}

// Rows [first, last) of kPanelCols elements.
inline void zero_rows(uint32_t* panel, int32_t first, int32_t last) {
  for (int32_t at = first * kPanelCols; at < last * kPanelCols; at += V::kWidth) {
    _mm512_storeu_si512(panel + at, _mm512_setzero_si512());
  }
}

// One vector of slots, all in one panel.
template <typename T>
void pack_whole_keys(const KeyColumns<T>& keys, int32_t head_dim, uint32_t* to) {
  for (int32_t k = 0; k < head_dim; k += 2, to += kPanelCols) {
    _mm512_storeu_si512(to, interleave(keys.load(k), keys.load(k + 1)));
  }
}

// [ceil(count / kPanelCols)][padded head_dim / 2][kPanelCols]
template <typename T, int32_t kMultiple>
void pack_keys_of(const LanePages& pages, int32_t first, int32_t count, uint32_t* out) {
  const int32_t d = pages.head_dim;
  const int64_t panel_elements = int64_t{round_up(d, kMultiple)} / 2 * kPanelCols;
  for_each_columns<T>(pages, first, count, [&](const KeyColumns<T>& keys, int32_t column) {
    const int32_t width = keys.width;
    const int32_t inside = column % kPanelCols;
    const int32_t here = min_int(width, kPanelCols - inside);  // the rest goes to the next panel
    uint32_t* to = out + column / kPanelCols * panel_elements + inside;
    if (here == V::kWidth) return pack_whole_keys(keys, d, to);
    uint32_t* next = to - inside + panel_elements - here;
    const __mmask16 first_part = V::first_mask(here);
    const __mmask16 second_part = static_cast<__mmask16>(V::first_mask(width) & ~first_part);
    for (int32_t k = 0; k < d; k += 2) {
      const __m512i key = interleave(keys.load_first(k), keys.load_first(k + 1));
      _mm512_mask_storeu_epi32(to + k / 2 * kPanelCols, first_part, key);
      if (second_part != 0) _mm512_mask_storeu_epi32(next + k / 2 * kPanelCols, second_part, key);
    }
  });
  for (int32_t column = 0; column < count; column += kPanelCols, out += panel_elements) {
    zero_rows(out, d / 2, round_up(d, kMultiple) / 2);
  }
}

// [ceil(head_dim / kPanelCols)][kTileSlots / 2][kPanelCols]
template <typename T, int32_t kMultiple>
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
  for (int32_t k = 0; k < d; k += kPanelCols, out += kTileSlots / 2 * kPanelCols) {
    zero_rows(out, (count + 1) / 2, round_up(count, kMultiple) / 2);
  }
}

template <int32_t kMultiple>
void pack_keys(const LanePages& pages, int32_t first, int32_t count, int32_t place, void* out) {
  uint32_t* to = static_cast<uint32_t*>(out) + int64_t{place} * round_up(pages.head_dim, kMultiple) / 2;
  with_elements(pages.format, [&](auto elements) {
    pack_keys_of<typename decltype(elements)::Key, kMultiple>(pages, first, count, to);
  });
}

template <int32_t kMultiple>
void pack_values(const LanePages& pages, int32_t first, int32_t count, int32_t place, void* out) {
  uint32_t* to = static_cast<uint32_t*>(out) + place / 2 * kPanelCols;
  with_elements(pages.format, [&](auto elements) {
    pack_values_of<typename decltype(elements)::Value, kMultiple>(pages, first, count, to);
  });
}

}  // namespace
}  // namespace pkv
