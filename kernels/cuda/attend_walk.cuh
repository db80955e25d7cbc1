// Float32 attention of a block over slots of one lane, on ordinary cores: what attend_exact and attend_decode share.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "kernels/cuda/gpu.h"
#include "kernels/cuda/page_reader.cuh"
#include "kernels/cuda/query_block.cuh"
#include "kernels/operation_args.h"

namespace pkv::gpu {

constexpr int32_t kAttendThreads = 128;  // of a block, and slots of a tile: a thread a slot for the scores
constexpr int32_t kAttendWarps = kAttendThreads / kWarp;

// Attention over some slots, not yet divided by its sum: of head h the largest score and the sum of exp(score -
// largest). Every thread has the same. The sums of values with those weights lie in shared memory, [kHeads][head_dim].
template <int32_t kHeads>
struct Attended {
  float largest[kHeads], sum[kHeads];
};

// Shared memory that attend_slots() needs.
constexpr size_t attend_floats(int32_t heads, int32_t head_dim) {
  return static_cast<size_t>(heads * (head_dim + kAttendThreads + kAttendWarps));
}

// What a thread has of it: the sums of its own slots, and of the values of its warp's slots dimension lane + i * 32 of
// head h at [h][i].
template <int32_t kHeads, int32_t kDims>
struct AttendState {
  Attended<kHeads> softmax;
  float values[kHeads][kDims];
};

// The largest scores with this tile's. `room` [kAttendWarps][kHeads].
template <int32_t kHeads>
__device__ void tile_maxima(const float* scores, float* room, float* largest) {
  const auto thread = static_cast<int32_t>(threadIdx.x);
  for (int32_t h = 0; h < kHeads; ++h) {
    const float of_warp = warp_max(scores[h]);
    if (thread % kWarp == 0) room[thread / kWarp * kHeads + h] = of_warp;
  }
  __syncthreads();
  for (int32_t h = 0; h < kHeads; ++h) {
    for (int32_t warp = 0; warp < kAttendWarps; ++warp) largest[h] = fmaxf(largest[h], room[warp * kHeads + h]);
  }
}

template <int32_t kHeads, int32_t kDims, typename Entries>
__device__ void walk_lane(const Entries& entries, int32_t begin, int32_t end, int32_t head_dim, float scale,
                          float* shared, AttendState<kHeads, kDims>& state) {
  float* const queries = shared;                            // [head_dim][kHeads]
  float* const weights = queries + kHeads * head_dim;       // [kAttendThreads][kHeads]
  float* const maxima = weights + kHeads * kAttendThreads;  // [kAttendWarps][kHeads]
  const auto thread = static_cast<int32_t>(threadIdx.x), lane = thread % kWarp, warp = thread / kWarp;
  Attended<kHeads>& softmax = state.softmax;
  for (int32_t tile = begin; tile < end; tile += kAttendThreads) {
    const int32_t slot = tile + thread;
    float scores[kHeads], before[kHeads];
    if (slot < end) {
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
      for (int32_t i = 0; i < kDims; ++i) state.values[h][i] *= kept;
    }
    __syncthreads();
    const int32_t slots = min(kAttendThreads, end - tile);
    for (int32_t s = warp; s < slots; s += kAttendWarps) {
      const auto value = entries.value(tile + s);
      for (int32_t i = 0; i < kDims; ++i) {
        if (lane + i * kWarp >= head_dim) break;
        const float number = value[lane + i * kWarp];
        for (int32_t h = 0; h < kHeads; ++h) state.values[h][i] += weights[s * kHeads + h] * number;
      }
    }
    __syncthreads();
  }
}

// Adds the warps' sums in their order. `room` [kHeads][head_dim].
template <int32_t kHeads, int32_t kDims>
__device__ void add_warps(const AttendState<kHeads, kDims>& state, int32_t head_dim, float* room) {
  const auto thread = static_cast<int32_t>(threadIdx.x), lane = thread % kWarp;
  for (int32_t warp = 0; warp < kAttendWarps; ++warp) {
    if (thread / kWarp == warp) {
      for (int32_t h = 0; h < kHeads; ++h) {
        for (int32_t i = 0; i < kDims; ++i) {
          if (lane + i * kWarp >= head_dim) break;
          float& sum = room[h * head_dim + lane + i * kWarp];
          sum = warp == 0 ? state.values[h][i] : sum + state.values[h][i];
        }
      }
    }
    __syncthreads();
  }
}

// The queries of a row's heads against slots [begin, end) of the lane, which has some. All threads of a block of
// kAttendThreads; `row` is the row's first query.
template <int32_t kHeads, int32_t kDims>
__device__ Attended<kHeads> attend_slots(const KvView& kv, const Lane& lane, int32_t begin, int32_t end,
                                         const float* row, const QueryHeads& heads, float scale, float* shared) {
  __syncthreads();  // whoever reads what was there
  load_queries<kHeads>(row, heads, kv.head_dim, shared);
  __syncthreads();
  match_queries<kHeads>(lane, 1, kv.head_dim, shared);
  AttendState<kHeads, kDims> state;
  for (int32_t h = 0; h < kHeads; ++h) {
    state.softmax.largest[h] = -INFINITY;
    state.softmax.sum[h] = 0;
    for (int32_t i = 0; i < kDims; ++i) state.values[h][i] = 0;
  }
  with_entries(kv, lane, [&](const auto& entries) {
    walk_lane<kHeads, kDims>(entries, begin, end, kv.head_dim, scale, shared, state);
  });
  add_warps<kHeads, kDims>(state, kv.head_dim, shared);
  if (has_codes(lane)) unmix_values(kHeads, kv.head_dim, shared);
  for (int32_t h = 0; h < kHeads; ++h) state.softmax.sum[h] = block_sum(state.softmax.sum[h]);
  return state.softmax;
}

// The result of one row's heads, from their sums of values [kHeads][head_dim]. All threads of the block.
template <int32_t kHeads>
__device__ void write_attended(const AttendArgs& args, int32_t row, const QueryHeads& heads,
                               const Attended<kHeads>& attended, const float* values) {
  const auto thread = static_cast<int32_t>(threadIdx.x);
  const int32_t d = args.kv.head_dim;
  for (int32_t h = 0; h < kHeads; ++h) {
    if (h >= heads.count) break;
    float* out = args.out.f32_row(row) + static_cast<int64_t>(heads.first + h) * d;
    for (int32_t i = thread; i < d; i += static_cast<int32_t>(blockDim.x)) out[i] = values[h * d + i] / attended.sum[h];
    if (thread == 0 && args.lse.data != nullptr) {
      args.lse.f32_row(row)[heads.first + h] = attended.largest[h] + logf(attended.sum[h]);
    }
  }
}

// Of a row that sees nothing.
__device__ inline void write_nothing(const AttendArgs& args, int32_t row, const QueryHeads& heads) {
  const auto thread = static_cast<int32_t>(threadIdx.x);
  const int64_t d = args.kv.head_dim;
  float* out = args.out.f32_row(row) + heads.first * d;
  for (int64_t i = thread; i < heads.count * d; i += blockDim.x) out[i] = 0;
  if (thread < heads.count && args.lse.data != nullptr) args.lse.f32_row(row)[heads.first + thread] = -INFINITY;
}

// The query heads of one KV head, or a part of them, of one row of q.
struct AttendUnit {
  int32_t row = 0;
  int32_t kv_head = 0;
  QueryHeads heads;
  const Lane* lane = nullptr;  // nullptr where the row is nobody's
  int32_t visible = 0;         // slots that the row sees
};
template <int32_t kHeads>
__device__ AttendUnit attend_unit(const AttendArgs& args, int32_t row, int32_t head_part) {
  const int32_t group = args.q_heads / args.kv_heads, parts = query_parts(group, kHeads);
  AttendUnit unit;
  unit.row = row;
  unit.kv_head = head_part / parts;
  unit.heads = query_heads<kHeads>(unit.kv_head, head_part % parts, group);
  const RowSpan* span = span_of(args.spans, row + args.skipped_rows);
  if (span == nullptr) return unit;
  unit.lane = args.kv.lanes + span->first_lane + unit.kv_head;
  unit.visible = unit.lane->visible + row + args.skipped_rows - span->first_row;
  return unit;
}

// visit(integral constants: heads of a block, dimensions of a thread) for head sizes to 256.
template <typename Visit>
void with_attend_shape(const AttendArgs& args, const Visit& visit) {
  with_query_heads(args.q_heads / args.kv_heads, [&](auto heads) {
    if (args.kv.head_dim <= 2 * kWarp) return visit(heads, std::integral_constant<int32_t, 2>());
    if (args.kv.head_dim <= 4 * kWarp) return visit(heads, std::integral_constant<int32_t, 4>());
    visit(heads, std::integral_constant<int32_t, 8>());
  });
}

}  // namespace pkv::gpu
