// Writes new keys and values to their pages: values row by row, keys transposed to [head_dim][slots].
#include <algorithm>
#include <cstring>

#include "kernels/check.h"
#include "kernels/cpu/attention.h"

namespace pkv {
namespace {

constexpr int32_t kBlockRows = 16;

// Rows of one span for one KV head.
struct LaneRows {
  const Lane* lane;
  TensorView k;  // [rows, head_dim]
  TensorView v;
  const int32_t* positions;
};

template <typename T>
void scatter_keys(const T* rows, int32_t count, int32_t head_dim, int32_t slots, T* keys) {
  for (int32_t k = 0; k < head_dim; ++k) {
    for (int32_t i = 0; i < count; ++i)
      keys[static_cast<int64_t>(k) * slots + i] = rows[static_cast<int64_t>(i) * head_dim + k];
  }
}

void write_lane(const LaneRows& rows, const KvView& kv, void (*to_half)(const float*, uint16_t*, int64_t),
                float* scratch) {
  const Lane& lane = *rows.lane;
  const PageLayout layout = kv.layout(lane);
  const int32_t d = kv.head_dim;
  const int32_t slots = layout.slots();
  const bool half = lane.dtype == KvDtype::kF16;
  auto* halves = reinterpret_cast<uint16_t*>(scratch);
  for (int32_t row = 0; row < rows.k.rows;) {
    const int32_t slot = lane.write_slot + row;
    const int32_t place = slot % slots;
    const int32_t count = std::min({kBlockRows, slots - place, static_cast<int32_t>(rows.k.rows) - row});
    std::byte* page = kv.page(lane, slot / slots);
    std::byte* values = page + layout.value_offset();
    for (int32_t i = 0; i < count; ++i) {
      const float* key = rows.k.f32_row(row + i);
      const float* value = rows.v.f32_row(row + i);
      if (half) {
        to_half(key, halves + static_cast<int64_t>(i) * d, d);
        to_half(value, reinterpret_cast<uint16_t*>(values) + static_cast<int64_t>(place + i) * d, d);
      } else {
        std::memcpy(scratch + static_cast<int64_t>(i) * d, key, d * sizeof(float));
        std::memcpy(reinterpret_cast<float*>(values) + static_cast<int64_t>(place + i) * d, value, d * sizeof(float));
      }
    }
    if (half) {
      scatter_keys(halves, count, d, slots, reinterpret_cast<uint16_t*>(page) + place);
    } else {
      scatter_keys(scratch, count, d, slots, reinterpret_cast<float*>(page) + place);
    }
    std::copy_n(rows.positions + row, count, kv.page_positions(lane, slot / slots) + place);
    row += count;
  }
}

}  // namespace

void CpuAttention::write_kv(const TensorView& k, const TensorView& v, std::span<const int32_t> positions,
                            const KvView& kv, std::span<const RowSpan> spans, int32_t kv_heads) {
  PKV_CHECK(positions.size() == static_cast<size_t>(k.rows), "one position for each row");
  for (FloatScratch& scratch : per_thread_) scratch.reserve(static_cast<int64_t>(kBlockRows) * kv.head_dim);
  const int64_t lanes = static_cast<int64_t>(spans.size()) * kv_heads;
  const auto write = [&](int64_t index, int32_t thread) {
    const RowSpan& span = spans[index / kv_heads];
    const int64_t head = index % kv_heads;
    const LaneRows rows{.lane = &kv.lanes[span.first_lane + head],
                        .k = k.slice_rows(span.first_row, span.rows).slice_cols(head * kv.head_dim, kv.head_dim),
                        .v = v.slice_rows(span.first_row, span.rows).slice_cols(head * kv.head_dim, kv.head_dim),
                        .positions = positions.data() + span.first_row};
    write_lane(rows, kv, kernels_.to_half, per_thread_[thread].reserve(0));
  };
  for_tasks(lanes, k.rows * k.cols >= kMinParallelElements, write);
}

}  // namespace pkv
