// Log-sum-exps of one row's scores against a lane, in parts.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/cuda/gpu.h"
#include "kernels/cuda/page_reader.cuh"
#include "kernels/cuda/query_block.cuh"

namespace pkv::gpu {

// The largest of some scores, and the sum of exp(score - largest).
struct LogSum {
  float largest = -INFINITY;
  float sum = 0;

  __device__ void add(const LogSum& other) {
    if (other.sum == 0) return;
    const float both = fmaxf(largest, other.largest);
    sum = sum * expf(largest - both) + other.sum * expf(other.largest - both);
    largest = both;
  }
  __device__ float value() const { return largest + logf(sum); }
};

// Those of every row and query head that the kBlocks blocks of a lane found.
template <int32_t kBlocks>
struct LogSumParts {
  LogSum* parts = nullptr;  // [rows][Hq][kBlocks]
  int32_t q_heads = 0;

  __device__ LogSum& at(int64_t row, int32_t head, int32_t block) const {
    return parts[(row * q_heads + head) * kBlocks + block];
  }
  __device__ LogSum all(int64_t row, int32_t head) const {
    LogSum all;
    for (int32_t block = 0; block < kBlocks; ++block) all.add(at(row, head, block));
    return all;
  }
};

// sums[h] = that of matched queries against the slots first, first + stride, ... below `end` and those that follow
// each, as many as a block has threads. All threads of the block, and every one gets it.
template <int32_t kHeads>
__device__ void log_sums(const KvView& kv, const Lane& lane, const float* queries, float scale, int32_t first,
                         int32_t stride, int32_t end, LogSum (&sums)[kHeads]) {
  const auto thread = static_cast<int32_t>(threadIdx.x);
  float largest[kHeads], sum[kHeads];
  for (int32_t h = 0; h < kHeads; ++h) largest[h] = -INFINITY, sum[h] = 0;
  with_entries(kv, lane, [&](const auto& entries) {
    for (int32_t slot = first + thread; slot < end; slot += stride) {
      float scores[kHeads];
      score_slot<kHeads>(queries, entries.key(slot), kv.head_dim, scale, scores);
      for (int32_t h = 0; h < kHeads; ++h) {
        const float before = largest[h];
        largest[h] = fmaxf(before, scores[h]);
        sum[h] = sum[h] * expf(before - largest[h]) + expf(scores[h] - largest[h]);
      }
    }
  });
  for (int32_t h = 0; h < kHeads; ++h) {
    const float of_all = block_max(largest[h]);
    const double total = block_sum(sum[h] > 0 ? static_cast<double>(sum[h] * expf(largest[h] - of_all)) : 0.0);
    sums[h] = {of_all, static_cast<float>(total)};
  }
}

}  // namespace pkv::gpu
