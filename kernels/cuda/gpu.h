// What every .cu file includes: it is CUDA C++ under nvcc, and plain C++ for the simulator (sim/), with the same
// source. Beside CUDA's own words (threadIdx, __syncthreads(), __shfl_xor_sync(), atomicAdd(), ...: those in
// sim/device.h work in both worlds) kernels use what is here where the two differ:
//
//   PKV_SHARED(float, part, 32)         float part[32] of the block's shared memory
//   PKV_DYNAMIC_SHARED(float, scores)   a pointer to what the launch asked for, 16-aligned
//   PKV_DEVICE_CHECK(slot >= 0, "why")  our own bugs: the stream fails
//   half_to_float(), float_to_half()    16-bit floats as the cache has them, and likewise of bfloat16
//   warp_sum(), warp_max(), block_sum(), block_max()   in one fixed order
//
// Inline PTX belongs here, each piece with a C++ body beside it.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>

#include "kernels/tensor.h"

#ifdef __CUDACC__

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdio>

#define PKV_SHARED(type, name, count) __shared__ type name[count]
#define PKV_DYNAMIC_SHARED(type, name)                                       \
  extern __shared__ __align__(16) unsigned char pkv_dynamic_shared_memory[]; \
  type* const name = reinterpret_cast<type*>(pkv_dynamic_shared_memory)

#define PKV_DEVICE_CHECK(condition, message)                                            \
  do {                                                                                  \
    if (!(condition)) {                                                                 \
      printf("%s:%d: check failed: %s: %s\n", __FILE__, __LINE__, #condition, message); \
      __trap();                                                                         \
    }                                                                                   \
  } while (false)

#else

#include "kernels/cuda/sim/device.h"

#define PKV_DEVICE_CHECK(condition, message) \
  pkv::sim::require(static_cast<bool>(condition), message, pkv::sim::Place::here())

#define PKV_SHARED(type, name, count)                                                \
  type* const name = [] {                                                            \
    static const char key = 0;                                                       \
    return static_cast<type*>(pkv::sim::shared_array(&key, sizeof(type) * (count))); \
  }()
#define PKV_DYNAMIC_SHARED(type, name) type* const name = static_cast<type*>(pkv::sim::dynamic_shared())

#endif

namespace pkv::gpu {

constexpr int32_t kWarp = 32;
constexpr uint32_t kAllLanes = 0xffffffffu;

// ---- 16-bit floats, by their bits

__device__ inline float half_to_float(uint16_t bits) {
#ifdef __CUDACC__
  return __half2float(__ushort_as_half(bits));
#else
  return pkv::half_to_float(bits);
#endif
}

// Round to nearest even.
__device__ inline uint16_t float_to_half(float value) {
#ifdef __CUDACC__
  return __half_as_ushort(__float2half_rn(value));
#else
  return pkv::float_to_half(value);
#endif
}

__device__ inline float bfloat16_to_float(uint16_t bits) {
#ifdef __CUDACC__
  return __uint_as_float(static_cast<uint32_t>(bits) << 16);
#else
  return pkv::bfloat16_to_float(bits);
#endif
}

// Round to nearest even.
__device__ inline uint16_t float_to_bfloat16(float value) {
#ifdef __CUDACC__
  return __bfloat16_as_ushort(__float2bfloat16_rn(value));
#else
  return pkv::float_to_bfloat16(value);
#endif
}

// ---- reductions, whose result every thread gets

struct Sum {
  template <typename T>
  __device__ T operator()(T a, T b) const {
    return a + b;
  }
};

struct Max {
  template <typename T>
  __device__ T operator()(T a, T b) const {
    return a < b ? b : a;
  }
};

// All 32 lanes take part. A butterfly: every lane adds the same values in the same order, if `reduce` is commutative.
template <typename T, typename Reduce>
__device__ T warp_reduce(T value, Reduce reduce) {
#ifdef __CUDACC__
  for (int32_t distance = kWarp / 2; distance > 0; distance /= 2) {
    value = reduce(value, __shfl_xor_sync(kAllLanes, value, distance));
  }
  return value;
#else
  return pkv::sim::warp_butterfly(value, reduce);  // the same tree, with one exchange
#endif
}

template <typename T>
__device__ T warp_sum(T value) {
  return warp_reduce(value, Sum{});
}
template <typename T>
__device__ T warp_max(T value) {
  return warp_reduce(value, Max{});
}

// All threads of a block of whole warps, at most 32 of them, take part; `none` changes nothing (0 of a sum). Shared
// memory of earlier calls may be read until the first barrier in here.
template <typename T, typename Reduce>
__device__ T block_reduce(T value, T none, Reduce reduce) {
  PKV_SHARED(T, parts, kWarp);
  const int32_t lane = static_cast<int32_t>(threadIdx.x) % kWarp, warp = static_cast<int32_t>(threadIdx.x) / kWarp;
  value = warp_reduce(value, reduce);
  __syncthreads();  // whoever reads the parts of the call before
  if (lane == 0) parts[warp] = value;
  __syncthreads();
  return warp_reduce(lane < static_cast<int32_t>(blockDim.x) / kWarp ? parts[lane] : none, reduce);
}

template <typename T>
__device__ T block_sum(T value) {
  return block_reduce(value, T{0}, Sum{});
}
__device__ inline float block_max(float value) { return block_reduce(value, -INFINITY, Max{}); }

}  // namespace pkv::gpu
