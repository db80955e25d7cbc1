// The transform of numbers that share a scale (mix() in kernels/entry_codes.h), by warps: the same additions, so the
// same bits.
#pragma once

#include <cstdint>
#include <type_traits>

#include "kernels/cuda/gpu.h"
#include "kernels/entry_codes.h"

namespace pkv::gpu {

// mix() of `count` numbers, at most 32, of which each lane has one; what lanes beyond have is nobody's.
__device__ inline float mixed_by_warp(float number, int32_t count) {
  const auto lane = static_cast<int32_t>(threadIdx.x) % kWarp;
  for (int32_t reach = 1; reach < mixed_at_once(count); reach *= 2) {
    const float other = __shfl_xor_sync(kAllLanes, number, reach);
    number = (lane & reach) != 0 ? other - number : number + other;
  }
  return number;
}

// mix() of number(0), ..., number(count - 1), which are references to memory that no other warp works on.
template <typename Number>
__device__ void mix_by_warp(int32_t count, const Number& number) {
  const auto lane = static_cast<int32_t>(threadIdx.x) % kWarp;
  for (int32_t reach = 1; reach < mixed_at_once(count); reach *= 2) {
    __syncwarp();
    for (int32_t pair = lane; pair < count / 2; pair += kWarp) {
      const int32_t i = pair / reach * 2 * reach + pair % reach;
      const auto a = number(i), b = number(i + reach);
      number(i) = a + b;
      number(i + reach) = a - b;
    }
  }
  __syncwarp();
}

// mix() of `vectors` vectors at(v, 0), ..., at(v, count - 1) in memory of the block. All its threads, which meet
// afterwards.
template <typename At>
__device__ void mix_by_block(int32_t vectors, int32_t count, const At& at) {
  const auto thread = static_cast<int32_t>(threadIdx.x), warps = static_cast<int32_t>(blockDim.x) / kWarp;
  for (int32_t v = thread / kWarp; v < vectors; v += warps) {
    mix_by_warp(
        count, [&](int32_t i) -> auto& { return at(v, i); });
  }
  __syncthreads();
}

// Makes sums of mixed values, [heads][head_dim] in memory of the block, sums of values. All its threads, which meet
// afterwards. A warp has as many lanes as numbers share a scale.
__device__ inline void unmix_values(int32_t heads, int32_t head_dim, float* values) {
  const auto thread = static_cast<int32_t>(threadIdx.x), lane = thread % kWarp;
  const int32_t warps = static_cast<int32_t>(blockDim.x) / kWarp, groups = (head_dim + kWarp - 1) / kWarp;
  for (int32_t i = thread / kWarp; i < heads * groups; i += warps) {
    const int32_t first = i % groups * kWarp, count = min(kWarp, head_dim - first);
    float* const at = values + i / groups * head_dim + first + lane;
    const float number = mixed_by_warp(lane < count ? *at : 0.0f, count);
    if (lane < count) *at = number;
  }
  __syncthreads();
}

}  // namespace pkv::gpu
