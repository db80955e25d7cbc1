// Attention of single rows (decode): lanes are cut into tiles of whole pages, threads share the tiles of all lanes, and
// whoever finishes a row's last tile merges its partial results in tile order.
#include <algorithm>
#include <cmath>
#include <numbers>

#include "kernels/check.h"
#include "kernels/cpu/attention/attention.h"
#include "kernels/cpu/parallel.h"

namespace pkv {
namespace {

constexpr int32_t kDecodeTileSlots = 256;

int32_t pages_per_tile(const LanePages& pages) { return std::max(1, kDecodeTileSlots / pages.slots); }

}  // namespace

void CpuAttention::decode(const AttendArgs& args) {
  const int32_t group = args.q_heads / args.kv_heads;
  const int32_t d = args.kv.head_dim;
  units_.clear();
  int64_t tiles = 0;
  int64_t slots = 0;
  int32_t widest_tile = 0;
  for (const RowSpan& span : args.spans) {
    for (int32_t i = args.first_row(span); i < span.rows; ++i) {
      for (int32_t head = 0; head < args.kv_heads; ++head) {
        const int32_t lane = span.first_lane + head;
        const LanePages pages = lane_pages(args.kv, lane);
        const int32_t visible = args.kv.lanes[lane].visible + i;
        PKV_CHECK(visible >= 1, "a row sees at least one slot");
        const int32_t tile_slots = pages_per_tile(pages) * pages.slots;
        const int32_t count = (visible + tile_slots - 1) / tile_slots;
        units_.push_back({.row = span.first_row + i - args.skipped_rows,
                          .kv_head = head,
                          .visible = visible,
                          .tiles = count,
                          .first_tile = tiles,
                          .pages = pages});
        tiles += count;
        slots += visible;
        widest_tile = std::max(widest_tile, tile_slots);
      }
    }
  }
  if (tiles_left_capacity_ < units_.size()) {
    tiles_left_capacity_ = units_.size() * 2;
    tiles_left_ = std::make_unique<std::atomic<int32_t>[]>(tiles_left_capacity_);
  }
  for (size_t u = 0; u < units_.size(); ++u) tiles_left_[u].store(units_[u].tiles, std::memory_order_relaxed);
  partials_.reserve(tiles * group * (d + 2));
  const int64_t per_thread = static_cast<int64_t>(group) * (d + widest_tile + kScorePadding + 2) + d;
  for (Scratch& scratch : per_thread_) scratch.reserve(per_thread);

  parallel_for(pool_, tiles, elements_of_multiply_adds(2 * slots * group * d) / std::max<int64_t>(tiles, 1),
               [&](int64_t begin, int64_t end, int32_t thread) { run_decode_tiles(args, begin, end, thread); });
}

void CpuAttention::run_decode_tiles(const AttendArgs& args, int64_t begin, int64_t end, int32_t thread) {
  const int32_t group = args.q_heads / args.kv_heads;
  const int32_t d = args.kv.head_dim;
  const int64_t partial_floats = static_cast<int64_t>(group) * (d + 2);
  float* q = per_thread_[thread].reserve(0);
  float* mixed = q + static_cast<int64_t>(group) * d;
  float* scores = mixed + d;
  float* partials = partials_.reserve(0);
  const float scale = args.scale * std::numbers::log2e_v<float>;

  const auto after = std::upper_bound(units_.begin(), units_.end(), begin,
                                      [](int64_t tile, const DecodeUnit& unit) { return tile < unit.first_tile; });
  for (size_t u = after - units_.begin() - 1; begin < end; ++u) {
    const DecodeUnit& unit = units_[u];
    const float* heads = args.q.f32_row(unit.row) + static_cast<int64_t>(unit.kv_head) * group * d;
    for (int32_t g = 0; g < group; ++g) {
      const float* head = query_for(unit.pages, heads + g * d, mixed);
      for (int32_t k = 0; k < d; ++k) q[k * group + g] = head[k] * scale;
    }
    const int32_t tile_pages = pages_per_tile(unit.pages);
    const int32_t tile_slots = tile_pages * unit.pages.slots;
    const int64_t unit_end = std::min(end, unit.first_tile + unit.tiles);
    const int32_t done = static_cast<int32_t>(unit_end - begin);
    for (; begin < unit_end; ++begin) {
      const int32_t index = static_cast<int32_t>(begin - unit.first_tile);
      DecodeTile tile{.pages = unit.pages,
                      .count = std::min(tile_slots, unit.visible - index * tile_slots),
                      .pages_ahead = (unit.visible - index * tile_slots + unit.pages.slots - 1) / unit.pages.slots,
                      .group = group,
                      .q = q,
                      .scores = scores,
                      .score_stride = tile_slots + kScorePadding,
                      .partial = partials + begin * partial_floats};
      tile.pages.page_ids += static_cast<int64_t>(index) * tile_pages;
      kernels_.decode_tile(tile);
    }
    if (tiles_left_[u].fetch_sub(done, std::memory_order_acq_rel) == done) {
      finish_decode_unit(args, unit, partials + unit.first_tile * partial_floats);
    }
  }
}

void CpuAttention::finish_decode_unit(const AttendArgs& args, const DecodeUnit& unit, const float* partials) {
  const int32_t group = args.q_heads / args.kv_heads;
  float max[kMaxQueryGroup];
  float sum[kMaxQueryGroup];
  kernels_.combine_tiles(
      {.partials = partials,
       .tiles = unit.tiles,
       .group = group,
       .head_dim = args.kv.head_dim,
       .out = args.out.f32_row(unit.row) + static_cast<int64_t>(unit.kv_head) * group * args.kv.head_dim,
       .max = max,
       .sum = sum});
  if (args.lse.data == nullptr) return;
  float* lse = args.lse.f32_row(unit.row) + unit.kv_head * group;
  for (int32_t g = 0; g < group; ++g) lse[g] = max[g] * std::numbers::ln2_v<float> + std::log(sum[g]);
}

}  // namespace pkv
