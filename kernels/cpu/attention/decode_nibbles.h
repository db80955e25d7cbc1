// Decode: the weighted sum of values that are pairs of nibbles with scales. Weights are multiplied by the scales first,
// some slots at a time; the nibbles become float in registers, those at even and at odd places apart. Compiled once per
// instruction set (vec.h).
#pragma once

#include <cstdint>

#include "kernels/cpu/attention/attention_kernels.h"
#include "kernels/cpu/attention/lane_pages.h"
#include "kernels/cpu/vec.h"

namespace pkv {
namespace {

constexpr int32_t kNibbleRun = 64;  // slots whose weights are scaled at a time
constexpr int32_t kNibblePagesAhead = 4;

// A run's weights of G heads times the values' scales, of so many groups of dimensions.
template <int G, int kGroups>
struct ScaledWeights {
  float weights[kGroups][G][kNibbleRun + Vec<float>::kWidth];
};

// Of slots [first, first + slots) of a page, for dimensions from `dim` on.
template <int G, int kGroups>
void scale_weights(const DecodeTile& tile, int32_t head, int32_t dim, int32_t page, int32_t first, int32_t slots,
                   ScaledWeights<G, kGroups>& out) {
  using V = Vec<float>;
  const float* weights = tile.scores + head * tile.score_stride + page * tile.pages.slots + first;
  for (int k = 0; k < kGroups; ++k) {
    const uint16_t* scales = value_scales(tile.pages, page, dim + k * kValueScaleGroup) + first;
    for (int32_t s = 0; s < slots; s += V::kWidth) {
      const V::Type scale = V::load_first(scales + s, min_int(V::kWidth, slots - s));
#pragma GCC unroll 8
      for (int g = 0; g < G; ++g) V::store(out.weights[k][g] + s, V::load(weights + g * tile.score_stride + s) * scale);
    }
  }
}

// Adds a tile's values for heads [head, head + G), dimensions [dim, dim + 2 * N vectors), to its result.
template <int G, int N>
void decode_nibble_dims(const DecodeTile& tile, int32_t head, int32_t dim) {
  using V = Vec<float>;
  // A pair of vectors, of even and odd dimensions, has one scale; neighbouring pairs may share it.
  static_assert(kValueScaleGroup % (2 * V::kWidth) == 0);
  constexpr int kGroups = (2 * N * V::kWidth + kValueScaleGroup - 1) / kValueScaleGroup;
  const LanePages& pages = tile.pages;
  const int32_t row = pages.head_dim / 2;
  const int32_t page_count = (tile.count + pages.slots - 1) / pages.slots;
  ScaledWeights<G, kGroups> scaled;
  V::Type even[G][N], odd[G][N];
#pragma GCC unroll 8
  for (int g = 0; g < G; ++g) {
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) even[g][n] = odd[g][n] = V::broadcast(0.0f);
  }
  for (int32_t page = 0; page < page_count; ++page) {
    const NibblePair* values = page_values<NibblePair>(pages, page) + dim / 2;
    const int32_t end = min_int(pages.slots, tile.count - page * pages.slots);
    const int32_t later = page + kNibblePagesAhead;
    const NibblePair* next = later < tile.pages_ahead ? page_values<NibblePair>(pages, later) + dim / 2 : values;
    for (int32_t first = 0; first < end; first += kNibbleRun) {
      const int32_t slots = min_int(kNibbleRun, end - first);
      scale_weights(tile, head, dim, page, first, slots, scaled);
      for (int32_t s = 0; s < slots; ++s, values += row, next += row) {
        __builtin_prefetch(next);
        V::Type low[N], high[N];
#pragma GCC unroll 4
        for (int n = 0; n < N; ++n) V::load_split(values + n * V::kWidth, low[n], high[n]);
#pragma GCC unroll 8
        for (int g = 0; g < G; ++g) {
#pragma GCC unroll 4
          for (int n = 0; n < N; ++n) {
            const V::Type weight = V::broadcast(scaled.weights[2 * n * V::kWidth / kValueScaleGroup][g][s]);
            even[g][n] = V::fma(weight, low[n], even[g][n]);
            odd[g][n] = V::fma(weight, high[n], odd[g][n]);
          }
        }
      }
    }
  }
#pragma GCC unroll 8
  for (int g = 0; g < G; ++g) {
    float* out = tile.partial + (head + g) * pages.head_dim + dim;
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n, out += 2 * V::kWidth) {
      V::Type a, b;
      V::zip(even[g][n], odd[g][n], a, b);
      V::store(out, V::load(out) + a);
      V::store(out + V::kWidth, V::load(out + V::kWidth) + b);
    }
  }
}

// The last dimensions of a value, fewer than two vectors: one vector at a time, in order.
template <int G>
void decode_last_nibbles(const DecodeTile& tile, int32_t head, int32_t dim, int32_t dims) {
  using V = Vec<float>;
  const LanePages& pages = tile.pages;
  const int32_t d = pages.head_dim;
  V::Type acc[G];
#pragma GCC unroll 8
  for (int g = 0; g < G; ++g) acc[g] = V::broadcast(0.0f);
  for (int32_t slot = 0; slot < tile.count; ++slot) {
    const int32_t page = slot / pages.slots, place = slot - page * pages.slots;
    const NibblePair* value = page_values<NibblePair>(pages, page) + (place * d + dim) / 2;
    const V::Type scaled = V::load_first(value, dims) * V::broadcast(float_of(value_scales(pages, page, dim)[place]));
#pragma GCC unroll 8
    for (int g = 0; g < G; ++g) {
      acc[g] = V::fma(V::broadcast(tile.scores[(head + g) * tile.score_stride + slot]), scaled, acc[g]);
    }
  }
  for (int g = 0; g < G; ++g) V::store_first(tile.partial + (head + g) * d + dim, acc[g], dims);
}

// All dimensions, as many at a time as `vectors` vectors hold.
template <int G, int kVectors>
void decode_nibbles(const DecodeTile& tile, int32_t head) {
  using V = Vec<float>;
  const int32_t d = tile.pages.head_dim;
  int32_t dim = 0;
  if constexpr (kVectors > 2) {
    constexpr int32_t kDims = kVectors * V::kWidth;
    for (; dim + kDims <= d; dim += kDims) decode_nibble_dims<G, kVectors / 2>(tile, head, dim);
  }
  for (; dim + 2 * V::kWidth <= d; dim += 2 * V::kWidth) decode_nibble_dims<G, 1>(tile, head, dim);
  for (; dim < d; dim += V::kWidth) decode_last_nibbles<G>(tile, head, dim, min_int(V::kWidth, d - dim));
  for (int g = 0; g < G; ++g) unmix(tile.partial + (head + g) * d, d);
}

}  // namespace
}  // namespace pkv
