// Keys and values by themselves: the lengths of keys, how alike they are, turning them to other positions, and what
// values weigh. Pages are worked on one after another, keys as float32 [head_dim][slots], so all inner loops run along
// slots, and values as [slots][head_dim].
#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/check.h"
#include "kernels/cpu/attention/attention.h"
#include "kernels/cpu/lanes/entry_elements.h"
#include "kernels/cpu/parallel.h"

namespace pkv {
namespace {

// A tile is whole pages, at least one and about kTileSlots slots, counted from the lane's start: results do not depend
// on threads.
int32_t tile_slots(const PageLayout& layout) { return std::max(1, kTileSlots / layout.slots()) * layout.slots(); }

// Slots [begin, end) of one page; `first` is the lane's slot at the page's first place.
struct PagePart {
  int32_t page = 0;
  int32_t first = 0;
  int32_t begin = 0;
  int32_t end = 0;
};

// Calls visit(PagePart) for the pages of slots [begin, end) of a lane.
template <typename Visit>
void for_each_page(int32_t slots, int32_t begin, int32_t end, Visit visit) {
  for (int32_t slot = begin; slot < end;) {
    const int32_t page = slot / slots;
    const PagePart part{
        .page = page, .first = page * slots, .begin = slot - page * slots, .end = std::min(slots, end - page * slots)};
    visit(part);
    slot = part.first + part.end;
  }
}

// norms[j] = |k_j| of `count` keys, [head_dim][slots].
void norms_of(const float* __restrict keys, const PageLayout& layout, int32_t count, float* __restrict norms) {
  const int32_t slots = layout.slots();
  std::fill_n(norms, count, 0.0f);
  for (int32_t k = 0; k < layout.head_dim(); ++k, keys += slots) {
    for (int32_t j = 0; j < count; ++j) norms[j] += keys[j] * keys[j];
  }
  for (int32_t j = 0; j < count; ++j) norms[j] = std::sqrt(norms[j]);
}

// sums[k][j] += keys[k][j] * factors[j], [head_dim][slots].
void add_scaled(const float* __restrict keys, const float* __restrict factors, const PageLayout& layout, int32_t count,
                float* __restrict sums) {
  const int32_t slots = layout.slots();
  for (int32_t k = 0; k < layout.head_dim(); ++k, keys += slots, sums += slots) {
    for (int32_t j = 0; j < count; ++j) sums[j] += keys[j] * factors[j];
  }
}

// products[j] = k_j . vector of `count` keys.
void products_of(const float* __restrict keys, const float* __restrict vector, const PageLayout& layout, int32_t count,
                 float* __restrict products) {
  const int32_t slots = layout.slots();
  std::fill_n(products, count, 0.0f);
  for (int32_t k = 0; k < layout.head_dim(); ++k, keys += slots) {
    for (int32_t j = 0; j < count; ++j) products[j] += keys[j] * vector[k];
  }
}

// Turns `count` pairs of elements (a[j], b[j]) by one angle.
void turn_pairs(float* __restrict a, float* __restrict b, int32_t count, float cosine, float sine) {
  for (int32_t j = 0; j < count; ++j) {
    const float x = a[j], y = b[j];
    a[j] = x * cosine - y * sine;
    b[j] = x * sine + y * cosine;
  }
}

// `count` elements as floats: float32 where they lie, others in `room`; and from there back to where they lie.
float* as_floats(const AttentionKernels&, float* keys, int64_t, float*) { return keys; }
float* as_floats(const AttentionKernels& kernels, uint16_t* keys, int64_t count, float* room) {
  kernels.to_float(keys, room, count);
  return room;
}
void put_back(const AttentionKernels&, const float*, float*, int64_t) {}
void put_back(const AttentionKernels& kernels, const float* room, uint16_t* keys, int64_t count) {
  kernels.to_half(room, keys, count);
}

float inverse(float x) { return x > 0 ? 1.0f / x : 0.0f; }

}  // namespace

// Slots [begin, end) of lane first_lane + row, and a thread's scratch memory.
struct CpuAttention::KeyTile {
  const Lane& lane;
  PageLayout layout;
  int32_t row = 0;
  int32_t index = 0;  // of the lane's tiles
  int32_t begin = 0;
  int32_t end = 0;           // <= begin: there are no such slots
  float* keys = nullptr;     // [head_dim][slots]: room for a page's keys
  float* sums = nullptr;     // likewise
  float* factors = nullptr;  // [slots]
};

// Calls body(tile) for the tiles of slots [0, slots) of every lane, as many for each. Returns how many that are.
template <typename Body>
int32_t CpuAttention::for_each_key_tile(const KvView& kv, int32_t first_lane, int32_t lanes, int32_t slots, Body body) {
  const int64_t page_keys = int64_t{kv.head_dim} * densest_slots(kv.head_dim, kv.page_bytes);
  for (Scratch& scratch : per_thread_) scratch.reserve(3 * page_keys);
  int32_t tiles = 0;
  for (int32_t row = 0; row < lanes; ++row) {
    const int32_t each = tile_slots(page_layout(kv, kv.lanes[first_lane + row]));
    tiles = std::max(tiles, (slots + each - 1) / each);
  }
  const int64_t work = static_cast<int64_t>(slots) * kv.head_dim / std::max(tiles, 1);
  parallel_for(pool_, static_cast<int64_t>(lanes) * tiles, work, [&](int64_t task, int32_t thread) {
    const auto row = static_cast<int32_t>(task / tiles), index = static_cast<int32_t>(task % tiles);
    const Lane& lane = kv.lanes[first_lane + row];
    const PageLayout layout = page_layout(kv, lane);
    float* scratch = per_thread_[thread].reserve(0);
    body(KeyTile{.lane = lane,
                 .layout = layout,
                 .row = row,
                 .index = index,
                 .begin = index * tile_slots(layout),
                 .end = std::min(slots, (index + 1) * tile_slots(layout)),
                 .keys = scratch,
                 .sums = scratch + page_keys,
                 .factors = scratch + 2 * page_keys});
  });
  return tiles;
}

// The keys of one page, in place or converted into the tile's room.
float* CpuAttention::float_keys(const KvView& kv, const KeyTile& tile, int32_t page) const {
  const int64_t count = static_cast<int64_t>(tile.layout.slots()) * kv.head_dim;
  return with_elements(tile.lane.dtype, [&](auto elements) {
    auto* keys = reinterpret_cast<typename decltype(elements)::Key*>(kv.page(tile.lane, page));
    return as_floats(kernels_, keys, count, tile.keys);
  });
}

// Tasks are a query head's tiles of kTileSlots slots: the factor is packed once for each.
void CpuAttention::value_norms(const KvView& kv, int32_t first_lane, int32_t kv_heads, const TensorView& factors,
                               const TensorView& norms) {
  const auto n = static_cast<int32_t>(norms.cols), d = kv.head_dim;
  const int64_t group = norms.rows / kv_heads;
  PKV_CHECK(group * kv_heads == norms.rows && factors.rows == norms.rows * d && factors.cols == d,
            "shapes of value_norms");
  const int64_t packed_floats = packed_factor_floats(d);
  for (Scratch& scratch : per_thread_) {
    scratch.reserve(packed_floats + int64_t{d} * densest_slots(d, kv.page_bytes));
  }
  const int32_t tiles = (n + kTileSlots - 1) / kTileSlots;
  const int64_t work = elements_of_multiply_adds(int64_t{std::min(n, kTileSlots)} * d * d / 2);
  parallel_for(pool_, norms.rows * tiles, work, [&](int64_t task, int32_t thread) {
    const int64_t head = task / tiles;
    const auto begin = static_cast<int32_t>(task % tiles) * kTileSlots;
    const Lane& lane = kv.lanes[first_lane + head / group];
    const PageLayout layout = page_layout(kv, lane);
    float* packed = per_thread_[thread].reserve(0);
    kernels_.pack_factor(factors.f32_row(head * d), factors.row_stride, d, packed);
    for_each_page(layout.slots(), begin, std::min(n, begin + kTileSlots), [&](const PagePart& part) {
      const float* values = with_elements(lane.dtype, [&](auto elements) -> const float* {
        std::byte* at = kv.page(lane, part.page) + layout.value_at(part.begin, 0);
        return as_floats(kernels_, reinterpret_cast<typename decltype(elements)::Value*>(at),
                         int64_t{part.end - part.begin} * d, packed + packed_floats);
      });
      kernels_.factor_norms(values, part.end - part.begin, packed, d, norms.f32_row(head) + part.first + part.begin);
    });
  });
}

void CpuAttention::key_norms(const KvView& kv, int32_t first_lane, const TensorView& norms) {
  const auto lanes = static_cast<int32_t>(norms.rows), n = static_cast<int32_t>(norms.cols);
  for_each_key_tile(kv, first_lane, lanes, n, [&](const KeyTile& tile) {
    for_each_page(tile.layout.slots(), tile.begin, tile.end, [&](const PagePart& part) {
      norms_of(float_keys(kv, tile, part.page), tile.layout, part.end, norms.f32_row(tile.row) + part.first);
    });
  });
}

void CpuAttention::key_similarity(const KvView& kv, int32_t first_lane, const TensorView& unit_sums,
                                  const TensorView& cosines) {
  const auto lanes = static_cast<int32_t>(cosines.rows), n = static_cast<int32_t>(cosines.cols);
  const int32_t d = kv.head_dim;
  PKV_CHECK(unit_sums.rows == lanes && unit_sums.cols == d, "shapes of key_similarity");
  // Sums of tiles first, [lanes][d] each; the norms wait in `cosines`. No tile is shorter than kTileSlots / 2.
  const int32_t most_tiles = n / (kTileSlots / 2) + 1;
  float* partials = partials_.reserve(static_cast<int64_t>(lanes) * most_tiles * d);
  const int32_t tiles = for_each_key_tile(kv, first_lane, lanes, n, [&](const KeyTile& tile) {
    const int32_t slots = tile.layout.slots();
    std::fill_n(tile.sums, static_cast<int64_t>(slots) * d, 0.0f);
    for_each_page(slots, tile.begin, tile.end, [&](const PagePart& part) {
      const float* keys = float_keys(kv, tile, part.page);
      float* norms = cosines.f32_row(tile.row) + part.first;
      norms_of(keys, tile.layout, part.end, norms);
      std::transform(norms, norms + part.end, tile.factors, inverse);
      add_scaled(keys, tile.factors, tile.layout, part.end, tile.sums);
    });
    float* partial = partials + (static_cast<int64_t>(tile.row) * most_tiles + tile.index) * d;
    for (int32_t k = 0; k < d; ++k)
      partial[k] = std::accumulate(tile.sums + k * slots, tile.sums + (k + 1) * slots, 0.0f);
  });
  for (int32_t row = 0; row < lanes; ++row) {
    float* sums = unit_sums.f32_row(row);
    std::fill_n(sums, d, 0.0f);
    for (int32_t tile = 0; tile < tiles; ++tile) {
      const float* partial = partials + (static_cast<int64_t>(row) * most_tiles + tile) * d;
      for (int32_t k = 0; k < d; ++k) sums[k] += partial[k];
    }
  }
  for_each_key_tile(kv, first_lane, lanes, n, [&](const KeyTile& tile) {
    const float* sums = unit_sums.f32_row(tile.row);
    const float length = std::sqrt(std::inner_product(sums, sums + d, sums, 0.0f));
    for_each_page(tile.layout.slots(), tile.begin, tile.end, [&](const PagePart& part) {
      float* out = cosines.f32_row(tile.row) + part.first;
      products_of(float_keys(kv, tile, part.page), sums, tile.layout, part.end, tile.factors);
      for (int32_t j = 0; j < part.end; ++j) out[j] = tile.factors[j] * inverse(out[j] * length);
    });
  });
}

void CpuAttention::turn_keys(const KvView& kv, int32_t first_lane, int32_t lanes, int32_t first_slot, int32_t delta,
                             const RopeSpec& spec) {
  const int32_t pairs = spec.pairs;
  PKV_CHECK(spec.head_dim == kv.head_dim && 2 * pairs <= kv.head_dim, "the rotation is for another head size");
  // Once for all keys, which turn alike, and without the magnitude: that was multiplied in when they turned first.
  RopeSpec turn = spec;
  turn.magnitude = 1.0f;
  turn_table_.prepare(std::span(&delta, 1), turn, pool_);
  const float* cosines = turn_table_.cosines(0);
  const float* sines = turn_table_.sines(0);
  // The second element of a pair: next to the first, or half of the rotated dimensions away.
  const bool adjacent = spec.pairing == RopePairing::kAdjacent;
  const int32_t step = adjacent ? 2 : 1, distance = adjacent ? 1 : pairs;
  int32_t longest = 0;
  for (int32_t row = 0; row < lanes; ++row) longest = std::max(longest, kv.lanes[first_lane + row].length);
  for_each_key_tile(kv, first_lane, lanes, longest, [&](const KeyTile& tile) {
    const int64_t slots = tile.layout.slots();
    const int32_t begin = std::max(tile.begin, first_slot), end = std::min(tile.end, tile.lane.length);
    for_each_page(tile.layout.slots(), begin, end, [&](const PagePart& part) {
      float* keys = float_keys(kv, tile, part.page);
      for (int32_t i = 0; i < pairs; ++i) {
        float* first = keys + i * step * slots + part.begin;
        turn_pairs(first, first + distance * slots, part.end - part.begin, cosines[i], sines[i]);
      }
      with_elements(tile.lane.dtype, [&](auto elements) {
        auto* stored = reinterpret_cast<typename decltype(elements)::Key*>(kv.page(tile.lane, part.page));
        put_back(kernels_, keys, stored, 2 * pairs * slots);
      });
    });
  });
}

}  // namespace pkv
