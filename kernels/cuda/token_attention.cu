// The attention that a step's queries give to the entries of lanes whose scores grow by it. What is launched follows
// from the number of sequences alone and lanes are as long as they are in memory, so that a recorded step has it. A
// lane's slots are divided by its own length: what a sequence comes to does not depend on who else is in the step.
#include <cmath>

#include "kernels/cuda/gpu.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/log_sum.cuh"
#include "kernels/cuda/page_reader.cuh"
#include "kernels/cuda/query_block.cuh"

namespace pkv::gpu {
namespace {

constexpr int32_t kThreads = 128;
constexpr int32_t kBlocksOfLane = 8;
constexpr int32_t kSlotsAtOnce = kBlocksOfLane * kThreads;  // of a lane, by its blocks together

using Parts = LogSumParts<kBlocksOfLane>;  // a row for each evicting sequence

// Block (x, y): slots [x * kThreads, (x + 1) * kThreads) of every kSlotsAtOnce, of the y-th lane and part of its query
// heads: sequence by sequence, KV head by KV head.
template <int32_t kHeads>
__global__ void __launch_bounds__(kThreads)
    token_lse_kernel(EvictingStep step, TokenQueries queries, Parts parts, int32_t parts_of_group) {
  PKV_DYNAMIC_SHARED(float, packed);
  const auto part = static_cast<int32_t>(blockIdx.y) % parts_of_group;
  const auto lane_index = static_cast<int32_t>(blockIdx.y) / parts_of_group;
  const int32_t sequence = lane_index / step.kv_heads, kv_head = lane_index % step.kv_heads;
  const EvictingRow& row = step.rows[sequence];
  if (!grows_by_attention(row.new_score)) return;
  const Lane& lane = queries.kv.lanes[row.row * step.kv_heads + kv_head];
  const QueryHeads heads = query_heads<kHeads>(kv_head, part, queries.q_heads / step.kv_heads);
  load_queries<kHeads>(queries.q.f32_row(row.row), heads, queries.kv.head_dim, packed);
  __syncthreads();
  match_queries<kHeads>(lane, 1, queries.kv.head_dim, packed);
  LogSum sums[kHeads];
  log_sums<kHeads>(queries.kv, lane, packed, queries.scale, static_cast<int32_t>(blockIdx.x) * kThreads, kSlotsAtOnce,
                   lane.length, sums);
  for (int32_t h = 0; h < heads.count && threadIdx.x == 0; ++h) {
    parts.at(sequence, heads.first + h, static_cast<int32_t>(blockIdx.x)) = sums[h];
  }
}

// Block (x, y): as above, of the y-th lane with all its query heads, a part of them after the other.
template <int32_t kHeads>
__global__ void __launch_bounds__(kThreads)
    add_attention_kernel(EvictingStep step, TokenQueries queries, Parts parts, int32_t parts_of_group) {
  PKV_DYNAMIC_SHARED(float, packed);
  PKV_SHARED(float, lse, kHeads);
  const auto thread = static_cast<int32_t>(threadIdx.x), lane_index = static_cast<int32_t>(blockIdx.y);
  const int32_t sequence = lane_index / step.kv_heads, kv_head = lane_index % step.kv_heads;
  const EvictingRow& row = step.rows[sequence];
  if (!grows_by_attention(row.new_score)) return;
  const Lane& lane = queries.kv.lanes[row.row * step.kv_heads + kv_head];
  const int32_t group = queries.q_heads / step.kv_heads, d = queries.kv.head_dim;
  float* scores = row.scores + lane.first_score;
  with_entries(queries.kv, lane, [&](const auto& entries) {
    for (int32_t first = static_cast<int32_t>(blockIdx.x) * kThreads; first < lane.length; first += kSlotsAtOnce) {
      const int32_t slot = first + thread;
      double mass = 0;
      for (int32_t part = 0; part < parts_of_group; ++part) {
        const QueryHeads heads = query_heads<kHeads>(kv_head, part, group);
        if (parts_of_group > 1 || first < kSlotsAtOnce) {  // otherwise they are there
          __syncthreads();                                 // whoever reads the part before
          load_queries<kHeads>(queries.q.f32_row(row.row), heads, d, packed);
          if (thread < heads.count) lse[thread] = parts.all(sequence, heads.first + thread).value();
          __syncthreads();
          match_queries<kHeads>(lane, 1, d, packed);
        }
        if (slot >= lane.length) continue;
        float scaled[kHeads];
        score_slot<kHeads>(packed, entries.key(slot), d, queries.scale, scaled);
        for (int32_t h = 0; h < kHeads; ++h) {
          if (h < heads.count) mass += expf(scaled[h] - lse[h]);
        }
      }
      // What has no score keeps the very bits that say so.
      if (slot < lane.length && !std::isnan(scores[slot])) scores[slot] += static_cast<float>(mass / group);
    }
  });
}

}  // namespace

void add_attention(Stream& stream, const EvictingStep& step, const TokenQueries& queries) {
  const int32_t group = queries.q_heads / step.kv_heads;
  const int64_t lanes = int64_t{step.count} * step.kv_heads;
  const Scratch scratch(stream, sizeof(LogSum) * static_cast<size_t>(step.count * queries.q_heads * kBlocksOfLane));
  const Parts parts{scratch.as<LogSum>(), queries.q_heads};
  with_query_heads(group, [&](auto heads) {
    constexpr int32_t kHeads = decltype(heads)::value;
    const int32_t parts_of_group = query_parts(group, kHeads);
    const size_t shared = sizeof(float) * static_cast<size_t>(kHeads * queries.kv.head_dim);
    launch(stream, "add_attention: log-sum-exp",
           {.blocks = kBlocksOfLane, .threads = kThreads, .blocks_y = lanes * parts_of_group, .shared_bytes = shared},
           token_lse_kernel<kHeads>, step, queries, parts, parts_of_group);
    launch(stream, "add_attention",
           {.blocks = kBlocksOfLane, .threads = kThreads, .blocks_y = lanes, .shared_bytes = shared},
           add_attention_kernel<kHeads>, step, queries, parts, parts_of_group);
  });
}

}  // namespace pkv::gpu
