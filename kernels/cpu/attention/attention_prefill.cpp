// Attention of a prompt's rows: each item (some rows of one KV head, all its query heads) walks the lane's tiles in
// order, or tiles made of what a pattern has its rows see (kernels/sparse_attention.h). A tile's keys and values are
// converted once per item.
#include <algorithm>
#include <span>

#include "kernels/check.h"
#include "kernels/cpu/attention/attention.h"
#include "kernels/cpu/attention/gathered_slots.h"
#include "kernels/cpu/parallel.h"

namespace pkv {
namespace {

// Query rows (tokens x heads) of an item: enough to pay for converting a tile, few enough for their sums to stay in the
// second-level cache; fewer when there would be less than two items for each thread.
constexpr int32_t kItemRows = 384;
constexpr int32_t kMinItemRows = 48;

constexpr int32_t kLineBytes = 64;

// Fetches a lane's pages into the second-level cache a few lines at a time, while something else computes.
class PageFetcher {
 public:
  // Pages of slots [first, last) of the lane, in `steps` steps.
  PageFetcher(const LanePages& pages, int32_t first, int32_t last, int32_t steps) : pages_(pages) {
    if (first >= last) return;
    page_ = first / pages.slots;
    end_ = (last - 1) / pages.slots + 1;
    lines_per_step_ = ((end_ - page_) * (pages.page_bytes / kLineBytes) + steps - 1) / steps;
  }

  void step() {
    for (int64_t i = 0; i < lines_per_step_ && page_ < end_; ++i) {
      __builtin_prefetch(pages_.pool + pages_.page_ids[page_] * pages_.page_bytes + offset_, 0, 2);
      offset_ += kLineBytes;
      if (offset_ < pages_.page_bytes) continue;
      offset_ = 0;
      ++page_;
    }
  }

 private:
  const LanePages& pages_;
  int32_t page_ = 0;
  int32_t end_ = 0;
  int64_t lines_per_step_ = 0;
  int64_t offset_ = 0;
};

}  // namespace

// The lists of slots that patterns make are not tiles but of whole blocks each.
static_assert(kTileSlots % kSparseBlock == 0 && kSparseBlock % kMaxPanelCols == 0);

void CpuAttention::list_prefill_items(const AttendArgs& args) {
  const int32_t group = args.q_heads / args.kv_heads;
  for (int32_t query_rows = kItemRows;; query_rows /= 2) {
    const int32_t tokens = std::max(1, query_rows / group);
    items_.clear();
    for (const RowSpan& span : args.spans) {
      for (int32_t first = args.first_row(span); first < span.rows; first += tokens) {
        add_items(args, span, first, std::min(tokens, span.rows - first));
      }
    }
    if (query_rows / 2 < kMinItemRows || items_.size() >= 2 * static_cast<size_t>(pool_.threads())) break;
  }
}

// Of the span's rows [first, first + rows), for every KV head.
void CpuAttention::add_items(const AttendArgs& args, const RowSpan& span, int32_t first, int32_t rows) {
  for (int32_t head = 0; head < args.kv_heads; ++head) {
    const int32_t visible = args.kv.lanes[span.first_lane + head].visible + first;
    items_.push_back({.rows = {.first_row = span.first_row + first - args.skipped_rows,
                               .rows = rows,
                               .kv_head = head,
                               .visible = visible,
                               .pages = lane_pages(args.kv, span.first_lane + head)},
                      .slots = visible});
  }
}

// An item's rows are of one block: what they see is the same but for the block itself.
void CpuAttention::list_sparse_items(const AttendArgs& args) {
  PKV_CHECK(args.spans.count == 1, "a pattern is of one prompt");
  const RowSpan& span = args.spans.data[0];
  const int32_t group = args.q_heads / args.kv_heads;
  const int32_t pieces = (kSparseBlock * group + kItemRows - 1) / kItemRows;
  const int32_t tokens = std::max(1, kSparseBlock / pieces);
  items_.clear();
  seen_.clear();
  for (int32_t first = args.first_row(span); first < span.rows;) {
    const int32_t slot = args.kv.lanes[span.first_lane].visible - 1 + first, block = slot / kSparseBlock;
    const int32_t rows = std::min({tokens, (block + 1) * kSparseBlock - slot, span.rows - first});
    const size_t begin = items_.size();
    add_items(args, span, first, rows);
    for (size_t i = begin; i < items_.size() && !args.sparse.is_dense(block); ++i) {
      items_[i].seen = static_cast<int32_t>(seen_.size());
      const SeenSlots& seen = seen_.emplace_back(seen_slots(args.sparse, items_[i].rows.kv_head, block));
      items_[i].slots = static_cast<int32_t>(seen.columns.size() + seen.blocks.size() * kSparseBlock);
    }
    first += rows;
  }
}

int64_t CpuAttention::prefill_scratch_floats(const AttendArgs& args) const {
  const int32_t group = args.q_heads / args.kv_heads;
  return PrefillRun::scratch_floats(std::max(kItemRows, group), args.kv.head_dim, panels_);
}

void CpuAttention::prefill(const AttendArgs& args) {
  args.sparse.is_set() ? list_sparse_items(args) : list_prefill_items(args);
  std::stable_sort(items_.begin(), items_.end(),
                   [](const PrefillItem& a, const PrefillItem& b) { return a.products() > b.products(); });
  const int64_t floats = prefill_scratch_floats(args);
  const int64_t gathered_floats =
      args.sparse.is_set() ? gathered_bytes(args.kv.head_dim) / static_cast<int64_t>(sizeof(float)) : 0;
  for (Scratch& scratch : per_thread_) scratch.reserve(floats + gathered_floats);
  int64_t multiply_adds = 0;
  for (const PrefillItem& item : items_) {
    multiply_adds += item.products() * args.kv.head_dim * (args.q_heads / args.kv_heads);
  }
  const auto items = static_cast<int64_t>(items_.size());
  parallel_for(pool_, items, elements_of_multiply_adds(multiply_adds) / std::max<int64_t>(items, 1),
               [&](int64_t index, int32_t thread) {
                 const PrefillItem& item = items_[index];
                 float* scratch = per_thread_[thread].reserve(0);
                 PrefillRun run(args, panels_, item.rows, scratch);
                 if (item.seen < 0) {
                   run_all_slots(item.rows, run);
                 } else {
                   run_seen_slots(item.rows, seen_[static_cast<size_t>(item.seen)], run, scratch + floats);
                 }
                 run.finish();
               });
}

void CpuAttention::run_all_slots(const PrefillRows& rows, PrefillRun& run) const {
  const int32_t last_visible = rows.last_visible();
  for (int32_t start = 0; start < last_visible; start += kTileSlots) {
    const int32_t tile = std::min(kTileSlots, last_visible - start);
    panels_.pack_keys(rows.pages, start, tile, /*place=*/0, run.keys());
    panels_.pack_values(rows.pages, start, tile, /*place=*/0, run.values());
    PageFetcher next_tile(rows.pages, start + kTileSlots, std::min(start + 2 * kTileSlots, last_visible), run.panels());
    run.add_tile(tile, rows.visible - start, [&] { next_tile.step(); });
  }
}

// Columns first, then blocks. With all blocks seen, the tiles are those of run_all_slots().
void CpuAttention::run_seen_slots(const PrefillRows& rows, const SeenSlots& seen, PrefillRun& run,
                                  float* scratch) const {
  auto* room = reinterpret_cast<std::byte*>(scratch);
  const std::span<const int32_t> columns = seen.columns;
  for (size_t start = 0; start < columns.size(); start += kTileSlots) {
    const std::span<const int32_t> tile = columns.subspan(start, std::min<size_t>(kTileSlots, columns.size() - start));
    for (size_t place = 0; place < tile.size(); place += kGatheredSlots) {
      const auto count = std::min<size_t>(kGatheredSlots, tile.size() - place);
      const LanePages gathered = gather_slots(rows.pages, tile.subspan(place, count), room);
      panels_.pack_keys(gathered, 0, static_cast<int32_t>(count), static_cast<int32_t>(place), run.keys());
      panels_.pack_values(gathered, 0, static_cast<int32_t>(count), static_cast<int32_t>(place), run.values());
    }
    run.add_tile(static_cast<int32_t>(tile.size()), /*place=*/kTileSlots, [] {});
  }
  constexpr size_t kTileBlocks = kTileSlots / kSparseBlock;
  for (size_t first = 0; first < seen.blocks.size(); first += kTileBlocks) {
    const size_t end = std::min(first + kTileBlocks, seen.blocks.size());
    int32_t tile = 0, before = 0;  // slots of the tile, and slots of the lane before those in it
    for (size_t i = first; i < end; ++i) {
      const int32_t start = seen.blocks[i] * kSparseBlock;
      const int32_t count = std::min(kSparseBlock, rows.last_visible() - start);
      panels_.pack_keys(rows.pages, start, count, tile, run.keys());
      panels_.pack_values(rows.pages, start, count, tile, run.values());
      before = start - tile;
      tile += count;
    }
    run.add_tile(tile, rows.visible - before, [] {});
  }
}

}  // namespace pkv
