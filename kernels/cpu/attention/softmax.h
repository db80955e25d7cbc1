// The softmax of attention over rows of scores in log2 units, for kernels that are compiled once per instruction set
// (vec.h). Rows are worked on in blocks of two vectors; a row's memory reaches to the end of its last block.
#pragma once

#include <cstdint>

#include "kernels/cpu/exponential.h"

namespace pkv {
namespace {

constexpr int32_t kSoftmaxBlock = 2 * Vec<float>::kWidth;
constexpr float kNegativeInfinity = -__builtin_huge_valf();

inline float max_of(float a, float b) { return a > b ? a : b; }

constexpr int32_t whole_blocks(int32_t columns) {
  return (columns + kSoftmaxBlock - 1) / kSoftmaxBlock * kSoftmaxBlock;
}

// Fills a row from column n to the end of its block.
inline void end_block(float* scores, int32_t n) {
  for (int32_t j = n; j < whole_blocks(n); ++j) scores[j] = kNegativeInfinity;
}

// The largest of scores [0, n), n >= 1.
inline float max_score(float* scores, int32_t n) {
  using V = Vec<float>;
  end_block(scores, n);
  V::Type a = V::load(scores);
  V::Type b = V::load(scores + V::kWidth);
  for (int32_t j = kSoftmaxBlock; j < n; j += kSoftmaxBlock) {
    a = V::max(a, V::load(scores + j));
    b = V::max(b, V::load(scores + j + V::kWidth));
  }
  return V::largest(V::max(a, b));
}

// Calls write(j, a, b) for every block: a and b are 2^(score - max) of the two vectors of scores from column j on, and
// 0 from column n on. Returns the sum of all.
template <typename Write>
float exp_and_sum(float* scores, int32_t n, float max, const Write& write) {
  using V = Vec<float>;
  end_block(scores, n);
  const V::Type shift = V::broadcast(max);
  V::Type sum[2] = {V::broadcast(0.0f), V::broadcast(0.0f)};
  for (int32_t j = 0; j < n; j += kSoftmaxBlock) {
    const V::Type a = exp2(V::load(scores + j) - shift);
    const V::Type b = exp2(V::load(scores + j + V::kWidth) - shift);
    write(j, a, b);
    sum[0] = sum[0] + a;
    sum[1] = sum[1] + b;
  }
  return V::sum(sum[0] + sum[1]);
}

// In place.
inline float exp_and_sum(float* scores, int32_t n, float max) {
  using V = Vec<float>;
  return exp_and_sum(scores, n, max, [scores](int32_t j, V::Type a, V::Type b) {
    V::store(scores + j, a);
    V::store(scores + j + V::kWidth, b);
  });
}

// One more tile of a row whose running maximum and sum are *max and *sum: writes the tile's weights as exp_and_sum does
// and returns the factor for what was summed before (FlashAttention-2, arXiv 2307.08691, algorithm 1).
template <typename Write>
float online_softmax(float* scores, int32_t n, float* max, float* sum, const Write& write) {
  const float next = max_of(*max, max_score(scores, n));
  const float keep = exp2(*max - next);
  *sum = *sum * keep + exp_and_sum(scores, n, next, write);
  *max = next;
  return keep;
}

}  // namespace
}  // namespace pkv
