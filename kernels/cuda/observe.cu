// Observation passes: the log-sum-exp of query rows, and the attention mass that lands on each slot. Scores are
// float32, as attend_exact has them; whatever is added up over rows is float64. Exact mode runs on these kernels, and
// what those for tensor cores (observe_halves.cu) do not take.
#include <type_traits>

#include "kernels/cuda/gpu.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/log_sum.cuh"
#include "kernels/cuda/observe_halves.h"
#include "kernels/cuda/page_reader.cuh"
#include "kernels/cuda/query_block.cuh"

namespace pkv::gpu {
namespace {

constexpr int32_t kThreads = 128;

// Whether a lane is left to others.
__device__ bool left_out(const Lane& lane, bool f16) { return !f16 && lane.dtype == KvDtype::kF16; }

// Block (x, y): row x, part y % parts of the query heads of KV head y / parts. A thread has every kThreads-th slot.
// `f16`: also of lanes with f16 entries.
template <int32_t kHeads>
__global__ void __launch_bounds__(kThreads) row_lse_kernel(ObserveArgs args, TensorView lse, int32_t parts, bool f16) {
  PKV_DYNAMIC_SHARED(float, queries);
  const auto row = static_cast<int32_t>(blockIdx.x), thread = static_cast<int32_t>(threadIdx.x);
  const int32_t kv_head = static_cast<int32_t>(blockIdx.y) / parts, part = static_cast<int32_t>(blockIdx.y) % parts;
  const int32_t d = args.kv.head_dim;
  const Lane& lane = args.kv.lanes[args.first_lane + kv_head];
  if (left_out(lane, f16)) return;
  const int32_t visible = args.visible(lane.length, row);
  const QueryHeads heads = query_heads<kHeads>(kv_head, part, args.q_heads / args.kv_heads);
  load_queries<kHeads>(args.q.f32_row(row), heads, d, queries);
  __syncthreads();
  match_queries<kHeads>(lane, 1, d, queries);
  LogSum sums[kHeads];
  log_sums<kHeads>(args.kv, lane, queries, args.scale, 0, kThreads, visible, sums);
  for (int32_t h = 0; h < heads.count && thread == 0; ++h) lse.f32_row(row)[heads.first + h] = sums[h].value();
}

// Rows of queries that a block holds at a time.
constexpr int32_t rows_at_once(int32_t head_dim, int32_t heads) {
  constexpr int32_t kFloats = 4096;
  return head_dim * heads < kFloats ? kFloats / (head_dim * heads) : 1;
}

// Block (x, y): slots [x * kThreads, (x + 1) * kThreads), a thread each; part y % parts of the query heads of KV head y
// / parts. Rows come one after another, so a slot's sum is made in their order.
template <int32_t kHeads>
__global__ void __launch_bounds__(kThreads)
    column_mass_kernel(ObserveArgs args, TensorView lse, TensorView sums, TensorView squares, int32_t parts, bool f16) {
  PKV_DYNAMIC_SHARED(float, queries);
  const auto thread = static_cast<int32_t>(threadIdx.x);
  const int32_t first_slot = static_cast<int32_t>(blockIdx.x) * kThreads, slot = first_slot + thread;
  const int32_t kv_head = static_cast<int32_t>(blockIdx.y) / parts, part = static_cast<int32_t>(blockIdx.y) % parts;
  const int32_t d = args.kv.head_dim, rows = static_cast<int32_t>(args.q.rows), at_once = rows_at_once(d, kHeads);
  const Lane& lane = args.kv.lanes[args.first_lane + kv_head];
  const QueryHeads heads = query_heads<kHeads>(kv_head, part, args.q_heads / args.kv_heads);
  if (left_out(lane, f16) || args.visible(lane.length, rows - 1) <= first_slot) return;  // the last row sees most
  double mass[kHeads], mass_squares[kHeads];
  for (int32_t h = 0; h < kHeads; ++h) mass[h] = 0, mass_squares[h] = 0;
  with_entries(args.kv, lane, [&](const auto& entries) {
    for (int32_t first = 0; first < rows; first += at_once) {
      const int32_t end = min(rows, first + at_once);
      if (args.visible(lane.length, end - 1) <= first_slot) continue;
      for (int32_t row = first; row < end; ++row) {
        load_queries<kHeads>(args.q.f32_row(row), heads, d, queries + (row - first) * kHeads * d);
      }
      __syncthreads();
      match_queries<kHeads>(lane, end - first, d, queries);
      for (int32_t row = first; row < end; ++row) {
        if (slot >= args.visible(lane.length, row)) continue;
        float scores[kHeads];
        score_slot<kHeads>(queries + (row - first) * kHeads * d, entries.key(slot), d, args.scale, scores);
        for (int32_t h = 0; h < kHeads; ++h) {
          if (h >= heads.count) break;
          const double weight = expf(scores[h] - lse.f32_row(row)[heads.first + h]);
          mass[h] += weight;
          mass_squares[h] += weight * weight;
        }
      }
      __syncthreads();
    }
  });
  if (slot >= sums.cols) return;
  for (int32_t h = 0; h < kHeads; ++h) {
    if (h >= heads.count) break;
    float& sum = sums.f32_row(heads.first + h)[slot];
    sum = static_cast<float>(sum + mass[h]);
    if (squares.data == nullptr) continue;
    float& square = squares.f32_row(heads.first + h)[slot];
    square = static_cast<float>(square + mass_squares[h]);
  }
}

void row_lse_rows(Stream& stream, const ObserveArgs& args, const TensorView& lse, bool f16) {
  const int32_t group = args.q_heads / args.kv_heads;
  with_query_heads(group, [&](auto heads) {
    constexpr int32_t kHeads = decltype(heads)::value;
    const int32_t parts = query_parts(group, kHeads);
    launch(stream, "row_lse",
           {.blocks = args.q.rows,
            .threads = kThreads,
            .blocks_y = int64_t{args.kv_heads} * parts,
            .shared_bytes = sizeof(float) * static_cast<size_t>(kHeads * args.kv.head_dim)},
           row_lse_kernel<kHeads>, args, lse, parts, f16);
  });
}

void column_mass_slots(Stream& stream, const ObserveArgs& args, const TensorView& lse, const TensorView& sums,
                       const TensorView& squares, bool f16) {
  if (args.q.rows == 0) return;
  const int32_t group = args.q_heads / args.kv_heads;
  with_query_heads(group, [&](auto heads) {
    constexpr int32_t kHeads = decltype(heads)::value;
    const int32_t parts = query_parts(group, kHeads);
    const int32_t floats = rows_at_once(args.kv.head_dim, kHeads) * kHeads * args.kv.head_dim;
    launch(stream, "column_mass",
           {.blocks = blocks_for(sums.cols, kThreads),
            .threads = kThreads,
            .blocks_y = int64_t{args.kv_heads} * parts,
            .shared_bytes = sizeof(float) * static_cast<size_t>(floats)},
           column_mass_kernel<kHeads>, args, lse, sums, squares, parts, f16);
  });
}

}  // namespace

void row_lse_exact(Stream& stream, const ObserveArgs& args, const TensorView& lse) {
  row_lse_rows(stream, args, lse, true);
}

void row_lse(Stream& stream, const ObserveArgs& args, const TensorView& lse) {
  row_lse_rows(stream, args, lse, !row_lse_of_halves(stream, args, lse));
}

void column_mass_exact(Stream& stream, const ObserveArgs& args, const TensorView& lse, const TensorView& sums,
                       const TensorView& squares) {
  column_mass_slots(stream, args, lse, sums, squares, true);
}

void column_mass(Stream& stream, const ObserveArgs& args, const TensorView& lse, const TensorView& sums,
                 const TensorView& squares) {
  if (args.q.rows == 0) return;
  column_mass_slots(stream, args, lse, sums, squares, !column_mass_of_halves(stream, args, lse, sums, squares));
}

}  // namespace pkv::gpu
