// Attention in float32 on ordinary cores: any head size to 256, any group of query heads, every entry format. Exact
// mode runs on it, and what other kernels do not take. A block computes one row for some query heads of a KV head and
// walks the lane alone, so that a row's result depends on nothing but its own lane.
#include <type_traits>

#include "kernels/cuda/gpu.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/page_reader.cuh"
#include "kernels/cuda/query_block.cuh"

namespace pkv::gpu {
namespace {

constexpr int32_t kThreads = 128;  // and slots of a tile: a thread a slot for the scores
constexpr int32_t kWarps = kThreads / kWarp;

// The softmax of kHeads heads as far as it has come. Every thread has the same maxima, and its own slots' sums.
template <int32_t kHeads>
struct Softmax {
  float largest[kHeads], sum[kHeads];
};

// Of tiles that are done: the weighted sum of values, dimension lane + i * 32 of head h at [h][i], over the slots of
// one warp.
template <int32_t kHeads, int32_t kDims>
struct Weighted {
  float of[kHeads][kDims];
};

// The maxima with this tile's scores. `room` [kWarps][kHeads].
template <int32_t kHeads>
__device__ void tile_maxima(const float* scores, float* room, float* largest) {
  const auto thread = static_cast<int32_t>(threadIdx.x);
  for (int32_t h = 0; h < kHeads; ++h) {
    const float of_warp = warp_max(scores[h]);
    if (thread % kWarp == 0) room[thread / kWarp * kHeads + h] = of_warp;
  }
  __syncthreads();
  for (int32_t h = 0; h < kHeads; ++h) {
    for (int32_t warp = 0; warp < kWarps; ++warp) largest[h] = fmaxf(largest[h], room[warp * kHeads + h]);
  }
}

template <int32_t kHeads, int32_t kDims, typename Entries>
__device__ void walk_lane(const Entries& entries, int32_t visible, int32_t head_dim, float scale, float* shared,
                          Softmax<kHeads>& softmax, Weighted<kHeads, kDims>& weighted) {
  float* const queries = shared;                       // [head_dim][kHeads]
  float* const weights = queries + kHeads * head_dim;  // [kThreads][kHeads]
  float* const maxima = weights + kHeads * kThreads;   // [kWarps][kHeads]
  const auto thread = static_cast<int32_t>(threadIdx.x), lane = thread % kWarp, warp = thread / kWarp;
  for (int32_t tile = 0; tile < visible; tile += kThreads) {
    const int32_t slot = tile + thread;
    float scores[kHeads], before[kHeads];
    if (slot < visible) {
      score_slot<kHeads>(queries, entries.key(slot), head_dim, scale, scores);
    } else {
      for (int32_t h = 0; h < kHeads; ++h) scores[h] = -INFINITY;
    }
    for (int32_t h = 0; h < kHeads; ++h) before[h] = softmax.largest[h];
    tile_maxima<kHeads>(scores, maxima, softmax.largest);
    for (int32_t h = 0; h < kHeads; ++h) {
      const float kept = expf(before[h] - softmax.largest[h]);
      const float weight = expf(scores[h] - softmax.largest[h]);
      softmax.sum[h] = softmax.sum[h] * kept + weight;
      weights[thread * kHeads + h] = weight;
      for (int32_t i = 0; i < kDims; ++i) weighted.of[h][i] *= kept;
    }
    __syncthreads();
    const int32_t end = min(kThreads, visible - tile);
    for (int32_t s = warp; s < end; s += kWarps) {
      const auto value = entries.value(tile + s);
      for (int32_t i = 0; i < kDims; ++i) {
        if (lane + i * kWarp >= head_dim) break;
        const float number = value[lane + i * kWarp];
        for (int32_t h = 0; h < kHeads; ++h) weighted.of[h][i] += weights[s * kHeads + h] * number;
      }
    }
    __syncthreads();
  }
}

// Adds the warps' sums in their order: out[h][dimension] of the block. `room` [kHeads][head_dim].
template <int32_t kHeads, int32_t kDims>
__device__ void add_warps(const Weighted<kHeads, kDims>& weighted, int32_t head_dim, float* room) {
  const auto thread = static_cast<int32_t>(threadIdx.x), lane = thread % kWarp;
  for (int32_t warp = 0; warp < kWarps; ++warp) {
    if (thread / kWarp == warp) {
      for (int32_t h = 0; h < kHeads; ++h) {
        for (int32_t i = 0; i < kDims; ++i) {
          if (lane + i * kWarp >= head_dim) break;
          float& sum = room[h * head_dim + lane + i * kWarp];
          sum = warp == 0 ? weighted.of[h][i] : sum + weighted.of[h][i];
        }
      }
    }
    __syncthreads();
  }
}

// Block (x, y): row x of q, part y % parts of the query heads of KV head y / parts.
template <int32_t kHeads, int32_t kDims>
__global__ void __launch_bounds__(kThreads) attend_exact_kernel(AttendArgs args, int32_t parts) {
  PKV_DYNAMIC_SHARED(float, shared);
  const auto row = static_cast<int32_t>(blockIdx.x), thread = static_cast<int32_t>(threadIdx.x);
  const int32_t kv_head = static_cast<int32_t>(blockIdx.y) / parts, part = static_cast<int32_t>(blockIdx.y) % parts;
  const int32_t step_row = row + args.skipped_rows, d = args.kv.head_dim;
  const RowSpan* span = span_of(args.spans, step_row);
  if (span == nullptr) return;
  const Lane& lane = args.kv.lanes[span->first_lane + kv_head];
  const int32_t visible = lane.visible + step_row - span->first_row;
  const QueryHeads heads = query_heads<kHeads>(kv_head, part, args.q_heads / args.kv_heads);
  load_queries<kHeads>(args.q.f32_row(row), heads, d, shared);
  __syncthreads();

  Softmax<kHeads> softmax;
  Weighted<kHeads, kDims> weighted;
  for (int32_t h = 0; h < kHeads; ++h) {
    softmax.largest[h] = -INFINITY;
    softmax.sum[h] = 0;
    for (int32_t i = 0; i < kDims; ++i) weighted.of[h][i] = 0;
  }
  with_entries(args.kv, lane, [&](const auto& entries) {
    walk_lane<kHeads, kDims>(entries, visible, d, args.scale, shared, softmax, weighted);
  });
  add_warps<kHeads, kDims>(weighted, d, shared);
  for (int32_t h = 0; h < kHeads; ++h) {
    const float sum = block_sum(softmax.sum[h]);
    if (h >= heads.count) continue;
    float* out = args.out.f32_row(row) + static_cast<int64_t>(heads.first + h) * d;
    for (int32_t i = thread; i < d; i += kThreads) out[i] = visible > 0 ? shared[h * d + i] / sum : 0.0f;
    if (thread == 0 && args.lse.data != nullptr)
      args.lse.f32_row(row)[heads.first + h] = softmax.largest[h] + logf(sum);
  }
}

template <int32_t kHeads, int32_t kDims>
void launch_attend(Stream& stream, const AttendArgs& args) {
  const int32_t parts = query_parts(args.q_heads / args.kv_heads, kHeads);
  const auto floats = static_cast<size_t>(kHeads * (args.kv.head_dim + kThreads + kWarps));
  launch(stream, "attend",
         {.blocks = args.q.rows,
          .threads = kThreads,
          .blocks_y = int64_t{args.kv_heads} * parts,
          .shared_bytes = sizeof(float) * floats},
         attend_exact_kernel<kHeads, kDims>, args, parts);
}

}  // namespace

void attend(Stream& stream, const AttendArgs& args) {
  with_query_heads(args.q_heads / args.kv_heads, [&](auto heads) {
    constexpr int32_t kHeads = decltype(heads)::value;
    const int32_t dims = args.kv.head_dim;
    if (dims <= 2 * kWarp) return launch_attend<kHeads, 2>(stream, args);
    if (dims <= 4 * kWarp) return launch_attend<kHeads, 4>(stream, args);
    launch_attend<kHeads, 8>(stream, args);
  });
}

}  // namespace pkv::gpu
