// Attention of a prompt's rows: each item (some rows of one KV head, all its query heads) walks the lane's tiles in
// order with an online softmax (FlashAttention-2, arXiv 2307.08691, algorithm 1). A tile's keys and values are
// converted once per item.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "kernels/check.h"
#include "kernels/cpu/attention/attention.h"
#include "kernels/cpu/parallel.h"

namespace pkv {
namespace {

// Query rows (tokens x heads) of an item: enough to pay for converting a tile, few enough for their sums to stay in the
// second-level cache; fewer when there would be less than two items for each thread.
constexpr int32_t kItemRows = 384;
constexpr int32_t kMinItemRows = 48;

constexpr int32_t kLineBytes = 64;

int32_t round_up(int32_t value, int32_t unit) { return (value + unit - 1) / unit * unit; }

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

void CpuAttention::list_prefill_items(const AttendArgs& args) {
  const int32_t group = args.q_heads / args.kv_heads;
  for (int32_t query_rows = kItemRows;; query_rows /= 2) {
    const int32_t tokens = std::max(1, query_rows / group);
    items_.clear();
    for (const RowSpan& span : args.spans) {
      for (int32_t first = args.first_row(span); first < span.rows; first += tokens) {
        for (int32_t head = 0; head < args.kv_heads; ++head) {
          items_.push_back({.first_row = span.first_row + first - args.skipped_rows,
                            .rows = std::min(tokens, span.rows - first),
                            .kv_head = head,
                            .visible = args.kv.lanes[span.first_lane + head].visible + first,
                            .pages = lane_pages(args.kv, span.first_lane + head)});
        }
      }
    }
    if (query_rows / 2 < kMinItemRows || items_.size() >= 2 * static_cast<size_t>(pool_.threads())) break;
  }
  std::stable_sort(items_.begin(), items_.end(),
                   [](const PrefillItem& a, const PrefillItem& b) { return a.products() > b.products(); });
}

int64_t CpuAttention::prefill_scratch_floats(const AttendArgs& args) const {
  const int32_t group = args.q_heads / args.kv_heads;
  const int64_t rows = round_up(std::max(kItemRows, group), panels_.rows);
  return rows * (2 * padded_dim(args.kv.head_dim) + 2) + 2 * kMaxPanelRows * kScoreStride +
         2 * kTileSlots * round_up(args.kv.head_dim, kMaxPanelCols) + 64;
}

void CpuAttention::prefill(const AttendArgs& args) {
  list_prefill_items(args);
  const int64_t floats = prefill_scratch_floats(args);
  for (Scratch& scratch : per_thread_) scratch.reserve(floats);
  int64_t multiply_adds = 0;
  for (const PrefillItem& item : items_) {
    multiply_adds += item.products() * args.kv.head_dim * (args.q_heads / args.kv_heads);
  }
  const auto items = static_cast<int64_t>(items_.size());
  parallel_for(
      pool_, items, elements_of_multiply_adds(multiply_adds) / std::max<int64_t>(items, 1),
      [&](int64_t item, int32_t thread) { run_prefill_item(args, items_[item], per_thread_[thread].reserve(0)); });
}

void CpuAttention::run_prefill_item(const AttendArgs& args, const PrefillItem& item, float* scratch) {
  const int32_t d = args.kv.head_dim;
  const int32_t stride = padded_dim(d);
  const int32_t group = args.q_heads / args.kv_heads;
  const int32_t query_rows = item.rows * group;
  const int32_t padded_rows = round_up(query_rows, panels_.rows);
  const int64_t operand_floats = static_cast<int64_t>(kTileSlots) * round_up(d, kMaxPanelCols);
  float* keys = scratch;
  float* values = keys + operand_floats;
  float* scores = values + operand_floats;
  float* acc = scores + 2 * kMaxPanelRows * kScoreStride;
  float* max = acc + static_cast<int64_t>(padded_rows) * stride;
  float* sum = max + padded_rows;
  float* queries = sum + padded_rows;
  std::fill(acc, max, 0.0f);
  std::fill(max, sum, -std::numeric_limits<float>::infinity());
  std::fill(sum, queries, 0.0f);

  const int64_t head_offset = static_cast<int64_t>(item.kv_head) * group * d;
  const auto query = [&](int32_t m) {
    return args.q.f32_row(item.first_row + m / group) + head_offset + m % group * d;
  };
  const float* rows[kMaxPanelRows];
  std::vector<float> mixed(static_cast<size_t>(panels_.rows) * static_cast<size_t>(d));
  for (int32_t first = 0; first < query_rows; first += panels_.rows) {
    const int32_t count = std::min(panels_.rows, query_rows - first);
    for (int32_t r = 0; r < count; ++r) {
      rows[r] = query_for(item.pages, query(first + r), mixed.data() + static_cast<int64_t>(r) * d);
      if (first + panels_.rows + r >= query_rows) continue;
      const auto* next = reinterpret_cast<const char*>(query(first + panels_.rows + r));
      for (int32_t byte = 0; byte < 4 * d; byte += kLineBytes) __builtin_prefetch(next + byte);
    }
    panels_.pack_queries(rows, count, d, args.scale * std::numbers::log2e_v<float>,
                         queries + static_cast<int64_t>(first) * stride);
  }

  const int32_t last_visible = item.visible + item.rows - 1;
  for (int32_t start = 0; start < last_visible; start += kTileSlots) {
    const int32_t tile = std::min(kTileSlots, last_visible - start);
    panels_.pack_keys(item.pages, start, tile, keys);
    panels_.pack_values(item.pages, start, tile, values);
    const bool all_seen = start + tile <= item.visible;
    PageFetcher next_tile(item.pages, start + kTileSlots, std::min(start + 2 * kTileSlots, last_visible),
                          padded_rows / panels_.rows);
    for (int32_t first = 0; first < query_rows; first += panels_.rows) {
      next_tile.step();
      int32_t limits[kMaxPanelRows];
      int32_t count = 0;
      for (int32_t r = 0; r < panels_.rows; ++r) {
        const int32_t m = first + r;
        limits[r] = m >= query_rows ? 0 : all_seen ? tile : std::clamp(item.visible + m / group - start, 0, tile);
        count = std::max(count, limits[r]);
      }
      if (count == 0) continue;
      panels_.attend({.queries = queries + static_cast<int64_t>(first) * stride,
                      .keys = keys,
                      .values = values,
                      .limits = limits,
                      .head_dim = d,
                      .count = count,
                      .scores = scores},
                     {.max = max + first, .sum = sum + first, .acc = acc + static_cast<int64_t>(first) * stride});
    }
  }

  for (int32_t m = 0; m < query_rows; ++m) {
    const int32_t row = item.first_row + m / group;
    float* out = args.out.f32_row(row) + head_offset + m % group * d;
    const float inverse = 1.0f / sum[m];
    for (int32_t k = 0; k < d; ++k) out[k] = acc[static_cast<int64_t>(m) * stride + k] * inverse;
    if (args.lse.data != nullptr) {
      args.lse.f32_row(row)[item.kv_head * group + m % group] = max[m] * std::numbers::ln2_v<float> + std::log(sum[m]);
    }
  }
}

}  // namespace pkv
