// Decode: one query row against whole pages, keys and values read once for all heads of the group. Compiled once per
// instruction set (vec.h).
#pragma once

#include <cstdint>

#include "kernels/cpu/attention/attention_kernels.h"
#include "kernels/cpu/attention/decode_nibbles.h"
#include "kernels/cpu/attention/lane_pages.h"
#include "kernels/cpu/attention/softmax.h"
#include "kernels/cpu/vec.h"

namespace pkv {
namespace {

using V = Vec<float>;

constexpr int32_t kPrefetchPages = 4;

// How many query heads share a pass over a tile, and with how many vectors of slots or dimensions at a time: what fits
// the set's registers.
#if defined(PKV_ISA_AVX512)
constexpr int32_t kMaxGroup = 8;
constexpr int key_blocks(int group) { return group <= 2 ? 8 : group <= 4 ? 4 : 2; }
constexpr int value_vectors(int group) { return group <= 4 ? 4 : 2; }
#elif defined(PKV_ISA_AVX2)
constexpr int32_t kMaxGroup = 4;
constexpr int key_blocks(int group) { return group <= 2 ? 4 : group == 3 ? 3 : 2; }
constexpr int value_vectors(int group) { return group <= 3 ? 4 : 2; }
#else
constexpr int32_t kMaxGroup = 4;
constexpr int key_blocks(int group) { return group == 1 ? 4 : 2; }
constexpr int value_vectors(int group) { return group <= 2 ? 4 : 2; }
#endif

// How a page's slots fill vectors: whole ones; pairs of eight, perhaps of two pages; or a partial last one in every
// page.
enum KeyShape { kWhole, kPairs, kPartial };

struct KeyVector {
  const void* low;
  const void* high;  // kPairs only
  int32_t column;    // of its first slot
  int32_t count;     // kPartial only: of its slots
};

// `offset`: bytes from a page's start to the keys, or to their scales.
template <typename T, int Shape>
KeyVector key_vector(const LanePages& pages, int32_t page_count, int32_t index, int32_t offset = 0) {
  if constexpr (Shape == kWhole) {
    const int32_t per_page = pages.slots / V::kWidth;
    const int32_t page = index / per_page;
    const T* keys = page_part<T>(pages, page, offset) + (index - page * per_page) * V::kWidth;
    return {keys, keys, index * V::kWidth, V::kWidth};
  } else if constexpr (Shape == kPairs) {
    const int32_t per_page = pages.slots / 8;
    const int32_t low = index * 2;
    const int32_t high = min_int(low + 1, page_count * per_page - 1);  // a last odd eight is paired with itself
    const auto eight = [&](int32_t i) { return page_part<T>(pages, i / per_page, offset) + i % per_page * 8; };
    return {eight(low), eight(high), index * V::kWidth, V::kWidth};
  } else {
    const int32_t per_page = (pages.slots + V::kWidth - 1) / V::kWidth;
    const int32_t page = index / per_page;
    const int32_t place = (index - page * per_page) * V::kWidth;
    const T* keys = page_part<T>(pages, page, offset) + place;
    return {keys, keys, page * pages.slots + place, min_int(V::kWidth, pages.slots - place)};
  }
}

// Only vectors of sixteen are loaded in pairs, so the others need not know how.
template <int Shape, typename Vector = V, typename T>
typename Vector::Type load_keys(const T* low, const T* high, int32_t count) {
  if constexpr (Shape == kWhole) {
    return Vector::load(low);
  } else if constexpr (Shape == kPairs) {
    return Vector::load_pair(low, high);
  } else {
    return Vector::load_first(low, count);
  }
}

// Scores of heads [head, head + G) for all slots of the tile; P vectors of slots at a time.
template <typename T, int Shape, int G, int P>
void decode_scores(const DecodeTile& tile, int32_t head) {
  const LanePages& pages = tile.pages;
  const int32_t slots = pages.slots;
  const int32_t page_count = (tile.count + slots - 1) / slots;
  const int32_t vectors = Shape == kPartial ? page_count * ((slots + V::kWidth - 1) / V::kWidth)
                                            : (page_count * slots + V::kWidth - 1) / V::kWidth;
  for (int32_t first = 0; first < vectors; first += P) {
    const T* low[P];
    const T* high[P];
    const T* next[P];  // what will be read after this block: keys, and after the last block values
    int32_t column[P];
    int32_t count[P];
#pragma GCC unroll 8
    for (int p = 0; p < P; ++p) {
      const int32_t index = min_int(first + p, vectors - 1);  // beyond the end: the last one once more
      const KeyVector v = key_vector<T, Shape>(pages, page_count, index);
      low[p] = static_cast<const T*>(v.low);
      high[p] = static_cast<const T*>(v.high);
      column[p] = v.column;
      count[p] = v.count;
      next[p] = first + P + p < vectors
                    ? static_cast<const T*>(key_vector<T, Shape>(pages, page_count, first + P + p).low)
                    : page_part<T>(pages, min_int(p, page_count - 1), pages.value_offset);
    }
    V::Type sum[G][P];
#pragma GCC unroll 8
    for (int g = 0; g < G; ++g) {
#pragma GCC unroll 8
      for (int p = 0; p < P; ++p) sum[g][p] = V::broadcast(0.0f);
    }
    const float* q = tile.q + head;
    for (int32_t k = 0; k < pages.head_dim; k += 2) {
#pragma GCC unroll 8
      for (int p = 0; p < P; ++p) __builtin_prefetch(next[p] + static_cast<int64_t>(k) * slots);
#pragma GCC unroll 2
      for (int odd_dim = 0; odd_dim < 2; ++odd_dim, q += tile.group) {
        const int64_t offset = static_cast<int64_t>(k + odd_dim) * slots;
        V::Type weight[G];
#pragma GCC unroll 8
        for (int g = 0; g < G; ++g) weight[g] = V::broadcast(q[g]);
#pragma GCC unroll 8
        for (int p = 0; p < P; ++p) {
          const V::Type key = load_keys<Shape>(low[p] + offset, high[p] + offset, count[p]);
#pragma GCC unroll 8
          for (int g = 0; g < G; ++g) sum[g][p] = V::fma(key, weight[g], sum[g][p]);
        }
      }
    }
    // Ascending, so that what a partial vector writes too much is overwritten by the next one.
#pragma GCC unroll 8
    for (int p = 0; p < P; ++p) {
      if (first + p >= vectors) break;
      if constexpr (kIsCode<T>) {
        const KeyVector at = key_vector<uint16_t, Shape>(pages, page_count, first + p, pages.key_scale_offset);
        const V::Type scale =
            load_keys<Shape>(static_cast<const uint16_t*>(at.low), static_cast<const uint16_t*>(at.high), at.count);
#pragma GCC unroll 8
        for (int g = 0; g < G; ++g) sum[g][p] = sum[g][p] * scale;
      }
#pragma GCC unroll 8
      for (int g = 0; g < G; ++g) V::store(tile.scores + (head + g) * tile.score_stride + column[p], sum[g][p]);
    }
  }
}

// acc[head .. head + G)[dim .. dim + N * V::kWidth) += weights * values, over pages [first_page, last_page). `dims`:
// dimensions in the vector where N is 1.
template <typename T, int G, int N>
void decode_values(const DecodeTile& tile, int32_t head, int32_t dim, int32_t dims, int32_t first_page,
                   int32_t last_page) {
  const LanePages& pages = tile.pages;
  const int32_t d = pages.head_dim;
  const int32_t page_count = (tile.count + pages.slots - 1) / pages.slots;
  float* out = tile.partial + head * d + dim;
  V::Type acc[G][N];
#pragma GCC unroll 8
  for (int g = 0; g < G; ++g) {
#pragma GCC unroll 4
    for (int v = 0; v < N; ++v)
      acc[g][v] = N == 1 ? V::load_first(out + g * d, dims) : V::load(out + g * d + v * V::kWidth);
  }
  for (int32_t page = first_page; page < last_page; ++page) {
    const T* values = page_values<T>(pages, page) + dim;
    const float* weights = tile.scores + head * tile.score_stride + page * pages.slots;
    const int32_t end = min_int(pages.slots, tile.count - page * pages.slots);
    // The values a few pages on, and after the tile's last page the keys of the next tile.
    const int32_t later = page + kPrefetchPages;
    const T* next = later < page_count         ? page_values<T>(pages, later) + dim
                    : later < tile.pages_ahead ? page_keys<T>(pages, later) + dim
                                               : values;
    for (int32_t s = 0; s < end; ++s, values += d, next += d) {
      constexpr int kLine = 64 / static_cast<int>(sizeof(T));
#pragma GCC unroll 8
      for (int v = 0; v < N * V::kWidth; v += kLine) __builtin_prefetch(next + v);
      V::Type value[N];
#pragma GCC unroll 4
      for (int v = 0; v < N; ++v) value[v] = N == 1 ? V::load_first(values, dims) : V::load(values + v * V::kWidth);
#pragma GCC unroll 8
      for (int g = 0; g < G; ++g) {
        const V::Type weight = V::broadcast(weights[g * tile.score_stride + s]);
#pragma GCC unroll 4
        for (int v = 0; v < N; ++v) acc[g][v] = V::fma(weight, value[v], acc[g][v]);
      }
    }
  }
#pragma GCC unroll 8
  for (int g = 0; g < G; ++g) {
#pragma GCC unroll 4
    for (int v = 0; v < N; ++v) {
      if (N == 1) {
        V::store_first(out + g * d, acc[g][v], dims);
      } else {
        V::store(out + g * d + v * V::kWidth, acc[g][v]);
      }
    }
  }
}

template <typename T, int G>
void decode_scores_of(const DecodeTile& tile, int32_t head) {
  const int32_t slots = tile.pages.slots;
  if (slots % V::kWidth == 0) return decode_scores<T, kWhole, G, key_blocks(G)>(tile, head);
  if constexpr (V::kWidth == 16) {
    if (slots % 8 == 0) return decode_scores<T, kPairs, G, key_blocks(G)>(tile, head);
  }
  decode_scores<T, kPartial, G, key_blocks(G)>(tile, head);
}

template <typename T, int G>
void decode_values_of(const DecodeTile& tile, int32_t head) {
  constexpr int32_t kVectors = value_vectors(G);
  if constexpr (kIsCode<T>) return decode_nibbles<G, kVectors>(tile, head);
  const int32_t d = tile.pages.head_dim;
  const int32_t page_count = (tile.count + tile.pages.slots - 1) / tile.pages.slots;
  // Several dimension blocks go over a few pages at a time, so that the second finds them in the first-level cache.
  const int32_t step = d <= kVectors * V::kWidth ? page_count : 4;
  for (int32_t page = 0; page < page_count; page += step) {
    const int32_t end = min_int(page + step, page_count);
    int32_t dim = 0;
    if constexpr (kVectors > 1) {
      for (; dim + kVectors * V::kWidth <= d; dim += kVectors * V::kWidth) {
        decode_values<T, G, kVectors>(tile, head, dim, V::kWidth, page, end);
      }
    }
    for (; dim < d; dim += V::kWidth) decode_values<T, G, 1>(tile, head, dim, min_int(V::kWidth, d - dim), page, end);
  }
}

using DecodeFn = void (*)(const DecodeTile&, int32_t);

struct DecodeFns {
  DecodeFn scores[kMaxGroup];  // [G - 1]
  DecodeFn values[kMaxGroup];
};

template <typename Elements, int G>
constexpr void add_decode_fns(DecodeFns& fns) {
  fns.scores[G - 1] = decode_scores_of<typename Elements::Key, G>;
  fns.values[G - 1] = decode_values_of<typename Elements::Value, G>;
  if constexpr (G < kMaxGroup) add_decode_fns<Elements, G + 1>(fns);
}

template <typename Elements>
constexpr DecodeFns make_decode_fns() {
  DecodeFns fns{};
  add_decode_fns<Elements, 1>(fns);
  return fns;
}

template <typename Elements>
constexpr DecodeFns kDecodeFns = make_decode_fns<Elements>();

void decode_tile(const DecodeTile& tile) {
  const DecodeFns& fns = with_elements(
      tile.pages.format, [](auto elements) -> const DecodeFns& { return kDecodeFns<decltype(elements)>; });
  const int32_t d = tile.pages.head_dim;
  float* max = tile.partial + tile.group * d;
  float* sum = max + tile.group;
  for (int32_t head = 0; head < tile.group; head += kMaxGroup) {
    fns.scores[min_int(kMaxGroup, tile.group - head) - 1](tile, head);
  }
  for (int32_t head = 0; head < tile.group; ++head) {
    float* scores = tile.scores + head * tile.score_stride;
    max[head] = max_score(scores, tile.count);
    sum[head] = exp_and_sum(scores, tile.count, max[head]);
  }
  for (int32_t i = 0; i < tile.group * d; ++i) tile.partial[i] = 0.0f;
  for (int32_t head = 0; head < tile.group; head += kMaxGroup) {
    fns.values[min_int(kMaxGroup, tile.group - head) - 1](tile, head);
  }
}

void combine_tiles(const CombineTiles& args) {
  const int32_t d = args.head_dim;
  const int32_t stride = args.group * (d + 2);
  for (int32_t head = 0; head < args.group; ++head) {
    const float* first = args.partials + head * d;
    const float* maxima = args.partials + args.group * d + head;
    const float* sums = maxima + args.group;
    float* out = args.out + head * d;
    float max = maxima[0];
    float sum = sums[0];
    for (int32_t k = 0; k < d; k += V::kWidth) {
      const int32_t dims = min_int(V::kWidth, d - k);
      V::store_first(out + k, V::load_first(first + k, dims), dims);
    }
    for (int64_t t = 1; t < args.tiles; ++t) {
      const float* acc = first + t * stride;
      const float next = max_of(max, maxima[t * stride]);
      const float keep = exp2(max - next);
      const float gain = exp2(maxima[t * stride] - next);
      max = next;
      sum = sum * keep + sums[t * stride] * gain;
      for (int32_t k = 0; k < d; k += V::kWidth) {
        const int32_t dims = min_int(V::kWidth, d - k);
        const V::Type kept = V::load_first(out + k, dims) * V::broadcast(keep);
        V::store_first(out + k, V::fma(V::load_first(acc + k, dims), V::broadcast(gain), kept), dims);
      }
    }
    const float inverse = 1.0f / sum;
    for (int32_t k = 0; k < d; ++k) out[k] *= inverse;
    args.max[head] = max;
    args.sum[head] = sum;
  }
}

}  // namespace
}  // namespace pkv
