// The place of a number among many by counting: every thread compares its own with all of them, a block's at a time
// from shared memory. Quadratic, and for the lengths that are put in order (a budget, at most a prompt, and rarely)
// less than the passes of a sort.
#pragma once

#include <cstdint>

#include "kernels/cuda/gpu.h"

namespace pkv::gpu {

// How many of number(0), ..., number(n - 1) come before the i-th: smaller ones, and equal ones before it. All threads
// of the block, also those whose i is not below n; `room` has a place for each.
template <typename Number>
__device__ int32_t ordered_place(int32_t i, int32_t n, uint32_t* room, const Number& number) {
  const auto thread = static_cast<int32_t>(threadIdx.x), threads = static_cast<int32_t>(blockDim.x);
  const uint32_t own = i < n ? number(i) : 0;
  int32_t place = 0;
  for (int32_t first = 0; first < n; first += threads) {
    __syncthreads();  // whoever reads what was there
    if (first + thread < n) room[thread] = number(first + thread);
    __syncthreads();
    const int32_t count = min(threads, n - first);
    for (int32_t j = 0; j < count; ++j) place += room[j] < own || (room[j] == own && first + j < i) ? 1 : 0;
  }
  return place;
}

}  // namespace pkv::gpu
