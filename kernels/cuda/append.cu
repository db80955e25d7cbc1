// Writing new entries: values row by row, keys transposed to [head_dim][slots].
#include "kernels/cuda/entry_writer.cuh"
#include "kernels/cuda/gpu.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/page_reader.cuh"

namespace pkv::gpu {
namespace {

constexpr int32_t kThreads = 256;
constexpr int32_t kRows = kWarp;  // of a block: the slots of a prompt's rows follow each other, and so do their keys

// Block (x, y): rows [x * kRows, (x + 1) * kRows) of the step for KV head y. Keys go through shared memory, [rows][d +
// 1], to be read along dimensions and written along slots.
__global__ void __launch_bounds__(kThreads)
    write_kv_kernel(TensorView k, TensorView v, const int32_t* positions, KvView kv, RowSpans spans) {
  PKV_DYNAMIC_SHARED(float, keys);
  PKV_SHARED(const Lane*, lanes, kRows);
  PKV_SHARED(int32_t, slots, kRows);
  const auto first = static_cast<int32_t>(blockIdx.x) * kRows;
  const auto thread = static_cast<int32_t>(threadIdx.x), lane_of_warp = thread % kWarp, warp = thread / kWarp;
  const int32_t d = kv.head_dim, pitch = d + 1;
  const int64_t column = int64_t{blockIdx.y} * d;
  if (thread < kRows) {
    const RowSpan* span = first + thread < k.rows ? span_of(spans, first + thread) : nullptr;
    const Lane* lane = span == nullptr ? nullptr : kv.lanes + span->first_lane + blockIdx.y;
    lanes[thread] = lane;
    slots[thread] = lane == nullptr ? 0 : lane->write_slot + first + thread - span->first_row;
  }
  __syncthreads();
  for (int32_t row = warp; row < kRows; row += kThreads / kWarp) {
    if (lanes[row] == nullptr) continue;
    const float* key = k.f32_row(first + row) + column;
    const float* value = v.f32_row(first + row) + column;
    for (int32_t i = lane_of_warp; i < d; i += kWarp) keys[row * pitch + i] = key[i];
    with_entries(kv, *lanes[row], [&](const auto& entries) {
      write_value(entries, slots[row], value, d);
      round_key(entries, slots[row], keys + row * pitch, d);
      if (lane_of_warp == 0) entries.position(slots[row]).stored(0) = positions[first + row];
    });
  }
  __syncthreads();
  const int32_t row = lane_of_warp;
  if (lanes[row] == nullptr) return;
  with_entries(kv, *lanes[row], [&](const auto& entries) {
    for (int32_t i = warp; i < d; i += kThreads / kWarp) write_key(entries, slots[row], i, keys[row * pitch + i]);
  });
}

}  // namespace

void write_kv(Stream& stream, const TensorView& k, const TensorView& v, const int32_t* positions, const KvView& kv,
              const RowSpans& spans, int32_t kv_heads) {
  launch(stream, "write_kv",
         {.blocks = blocks_for(k.rows, kRows),
          .threads = kThreads,
          .blocks_y = kv_heads,
          .shared_bytes = sizeof(float) * kRows * static_cast<size_t>(kv.head_dim + 1)},
         write_kv_kernel, k, v, positions, kv, spans);
}

}  // namespace pkv::gpu
