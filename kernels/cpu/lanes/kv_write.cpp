// Writes new keys and values to their pages: values row by row, keys transposed to [head_dim][slots].
#include <algorithm>

#include "kernels/check.h"
#include "kernels/cpu/attention/attention.h"
#include "kernels/cpu/lanes/entry_elements.h"
#include "kernels/cpu/parallel.h"

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

using ToHalf = void (*)(const float*, uint16_t*, int64_t);

void convert(const float* from, uint16_t* to, int32_t count, ToHalf to_half) { to_half(from, to, count); }
void convert(const float* from, float* to, int32_t count, ToHalf) { std::copy_n(from, count, to); }

template <typename Elements>
void write_lane(const LaneRows& rows, const KvView& kv, ToHalf to_half, float* scratch) {
  using Key = typename Elements::Key;
  using Value = typename Elements::Value;
  const Lane& lane = *rows.lane;
  const PageLayout layout = page_layout(kv, lane);
  const int32_t d = kv.head_dim;
  const int32_t slots = layout.slots();
  auto* keys = reinterpret_cast<Key*>(scratch);
  for (int32_t row = 0; row < rows.k.rows;) {
    const int32_t slot = lane.write_slot + row;
    const int32_t place = slot % slots;
    const int32_t count = std::min({kBlockRows, slots - place, static_cast<int32_t>(rows.k.rows) - row});
    std::byte* page = kv.page(lane, slot / slots);
    for (int32_t i = 0; i < count; ++i) {
      convert(rows.k.f32_row(row + i), keys + static_cast<int64_t>(i) * d, d, to_half);
      convert(rows.v.f32_row(row + i), reinterpret_cast<Value*>(page + layout.value_at(place + i, 0)), d, to_half);
    }
    scatter_keys(keys, count, d, slots, reinterpret_cast<Key*>(page) + place);
    std::copy_n(rows.positions + row, count, kv.page_positions(lane, slot / slots) + place);
    row += count;
  }
}

}  // namespace

void CpuAttention::write_kv(const TensorView& k, const TensorView& v, const int32_t* positions, const KvView& kv,
                            const RowSpans& spans, int32_t kv_heads) {
  for (Scratch& scratch : per_thread_) scratch.reserve(static_cast<int64_t>(kBlockRows) * kv.head_dim);
  const int64_t lanes = static_cast<int64_t>(spans.count) * kv_heads;
  const auto write = [&](int64_t index, int32_t thread) {
    const RowSpan& span = spans.data[index / kv_heads];
    const int64_t head = index % kv_heads;
    const LaneRows rows{.lane = &kv.lanes[span.first_lane + head],
                        .k = k.slice_rows(span.first_row, span.rows).slice_cols(head * kv.head_dim, kv.head_dim),
                        .v = v.slice_rows(span.first_row, span.rows).slice_cols(head * kv.head_dim, kv.head_dim),
                        .positions = positions + span.first_row};
    with_elements(rows.lane->dtype, [&](auto elements) {
      write_lane<decltype(elements)>(rows, kv, kernels_.to_half, per_thread_[thread].reserve(0));
    });
  };
  parallel_for(pool_, lanes, 2 * k.rows * k.cols / std::max<int64_t>(lanes, 1), write);
}

}  // namespace pkv
