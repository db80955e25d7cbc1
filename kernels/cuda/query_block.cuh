// What the float32 attention kernels share: some query heads of one row in shared memory, and their scores against one
// slot's key. Scores are sums over the dimensions in ascending order, so they are the same wherever they are computed.
#pragma once

#include <cstdint>
#include <type_traits>

#include "kernels/cuda/gpu.h"
#include "kernels/cuda/mixing.cuh"
#include "kernels/cuda/page_reader.cuh"

namespace pkv::gpu {

// Query heads that a block works on together, of those of one KV head: kHeads of them, of which the last may be
// nobody's.
struct QueryHeads {
  int32_t first = 0;  // of all query heads
  int32_t count = 0;
};

template <int32_t kHeads>
__device__ QueryHeads query_heads(int32_t kv_head, int32_t part, int32_t group) {
  return {kv_head * group + part * kHeads, min(kHeads, group - part * kHeads)};
}

// Parts that a group of query heads is cut into.
constexpr int32_t query_parts(int32_t group, int32_t heads) { return (group + heads - 1) / heads; }

// A row's queries to shared memory, [head_dim][kHeads], zeros for heads of nobody. `row` is the row's first query. All
// threads of the block, which meet before they read it.
template <int32_t kHeads>
__device__ void load_queries(const float* row, const QueryHeads& heads, int32_t head_dim, float* queries) {
  for (auto i = static_cast<int32_t>(threadIdx.x); i < kHeads * head_dim; i += static_cast<int32_t>(blockDim.x)) {
    const int32_t head = i / head_dim, k = i % head_dim;
    queries[k * kHeads + head] =
        head < heads.count ? row[static_cast<int64_t>(heads.first + head) * head_dim + k] : 0.0f;
  }
}

// Makes the queries of some rows, one after another as load_queries() has them, those that the lane's keys are to be
// multiplied by. All threads of the block, which have met since they were loaded and meet afterwards.
template <int32_t kHeads>
__device__ void match_queries(const Lane& lane, int32_t rows, int32_t head_dim, float* queries) {
  if (!has_codes(lane)) return;
  mix_by_block(rows * kHeads, head_dim, [=](int32_t v, int32_t i) -> float& {
    return queries[(v / kHeads * head_dim + i) * kHeads + v % kHeads];
  });
}

// scores[h] = scale * q_h . key, of matched queries.
template <int32_t kHeads, typename Key>
__device__ void score_slot(const float* queries, const Key& key, int32_t head_dim, float scale, float* scores) {
  for (int32_t h = 0; h < kHeads; ++h) scores[h] = 0;
  for (int32_t k = 0; k < head_dim; ++k) {
    const float number = key[k];
    for (int32_t h = 0; h < kHeads; ++h) scores[h] += queries[k * kHeads + h] * number;
  }
  for (int32_t h = 0; h < kHeads; ++h) scores[h] *= scale;
}

// Calls visit(std::integral_constant<int32_t, kHeads>()) with the least number of heads that a block of this group may
// have.
template <typename Visit>
void with_query_heads(int32_t group, const Visit& visit) {
  if (group == 1) return visit(std::integral_constant<int32_t, 1>());
  if (group == 2) return visit(std::integral_constant<int32_t, 2>());
  if (group == 3) return visit(std::integral_constant<int32_t, 3>());
  if (group == 4) return visit(std::integral_constant<int32_t, 4>());
  return visit(std::integral_constant<int32_t, 8>());
}

}  // namespace pkv::gpu
