// Writes new keys and values to their pages.
#include <algorithm>

#include "kernels/check.h"
#include "kernels/cpu/attention/attention.h"
#include "kernels/cpu/lanes/entry_writer.h"
#include "kernels/cpu/parallel.h"

namespace pkv {
namespace {

// Rows of one span for one KV head.
struct LaneRows {
  const Lane& lane;
  TensorView k;  // [rows, head_dim]
  TensorView v;
  const int32_t* positions;
};

void write_lane(const LaneRows& rows, const KvView& kv, const EntryWriter& writer) {
  const PageLayout layout = page_layout(kv, rows.lane);
  for (int32_t row = 0; row < rows.k.rows;) {
    const int32_t slot = rows.lane.write_slot + row;
    const int32_t page = slot / layout.slots(), place = slot % layout.slots();
    const int32_t count =
        std::min({EntryWriter::kMostEntries, layout.slots() - place, static_cast<int32_t>(rows.k.rows) - row});
    writer.write(layout, kv.page(rows.lane, page), place,
                 {.keys = rows.k.f32_row(row),
                  .key_stride = rows.k.row_stride,
                  .values = rows.v.f32_row(row),
                  .value_stride = rows.v.row_stride,
                  .count = count});
    std::copy_n(rows.positions + row, count, kv.page_positions(rows.lane, page) + place);
    row += count;
  }
}

}  // namespace

void CpuAttention::write_kv(const TensorView& k, const TensorView& v, const int32_t* positions, const KvView& kv,
                            const RowSpans& spans, int32_t kv_heads) {
  for (Scratch& scratch : per_thread_) scratch.reserve<std::byte>(EntryWriter::scratch_bytes(kv.head_dim));
  const int64_t lanes = static_cast<int64_t>(spans.count) * kv_heads;
  const auto write = [&](int64_t index, int32_t thread) {
    const RowSpan& span = spans.data[index / kv_heads];
    const int64_t head = index % kv_heads;
    const LaneRows rows{.lane = kv.lanes[span.first_lane + head],
                        .k = k.slice_rows(span.first_row, span.rows).slice_cols(head * kv.head_dim, kv.head_dim),
                        .v = v.slice_rows(span.first_row, span.rows).slice_cols(head * kv.head_dim, kv.head_dim),
                        .positions = positions + span.first_row};
    write_lane(rows, kv, EntryWriter(kernels_, per_thread_[thread].reserve<std::byte>(0)));
  };
  parallel_for(pool_, lanes, 2 * k.rows * k.cols / std::max<int64_t>(lanes, 1), write);
}

}  // namespace pkv
