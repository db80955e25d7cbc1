// CUDA's words for kernels that are compiled as C++: what a thread may ask and do inside a simulated block. A subset;
// what is missing does not compile and is added here.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "kernels/cuda/sim/block.h"
#include "kernels/quant.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __restrict__ __restrict
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))

#define threadIdx (pkv::sim::this_thread_index())
#define blockIdx (pkv::sim::this_block().index)
#define blockDim (pkv::sim::this_block().threads)
#define gridDim (pkv::sim::this_block().blocks)

struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) int2 {
  int x, y;
};
struct alignas(16) int4 {
  int x, y, z, w;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

// ---- barriers of a block. Where they are called from says whether the threads meet at the same one.

inline void __syncthreads(pkv::sim::Place at = pkv::sim::Place::here()) { pkv::sim::block_barrier(0, at); }
inline int __syncthreads_count(int predicate, pkv::sim::Place at = pkv::sim::Place::here()) {
  return pkv::sim::block_barrier(predicate != 0, at).count;
}
inline int __syncthreads_or(int predicate, pkv::sim::Place at = pkv::sim::Place::here()) {
  return __syncthreads_count(predicate, at) > 0;
}
inline int __syncthreads_and(int predicate, pkv::sim::Place at = pkv::sim::Place::here()) {
  const pkv::sim::BarrierVote vote = pkv::sim::block_barrier(predicate != 0, at);
  return vote.count == vote.threads;
}

// ---- what lanes of a warp do together

inline void __syncwarp(uint32_t mask = ~0u, pkv::sim::Place at = pkv::sim::Place::here()) {
  pkv::sim::warp_exchange(mask, 0, at);
}

namespace pkv::sim {

template <typename T>
uint64_t to_bits(T value) {
  static_assert(sizeof(T) <= sizeof(uint64_t) && std::is_trivially_copyable_v<T>);
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  return bits;
}
template <typename T>
T from_bits(uint64_t bits) {
  T value;
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}

// What `from` of the lane's group of `width` has; its own where that is no lane of the group.
template <typename T>
T shuffle(uint32_t mask, T value, int32_t from, int32_t width, const Place& at) {
  const int32_t lane = this_lane();
  const int32_t first = lane / width * width;
  const WarpValues& values = warp_exchange(mask, to_bits(value), at);
  const int32_t source = from < 0 || from >= width ? lane : first + from;
  require(mask >> source & 1u, "a shuffle reads from a lane outside its mask", at);
  return from_bits<T>(values.bits[source]);
}

template <typename T, typename Reduce>
T warp_butterfly(T value, Reduce reduce, const Place& at = Place::here()) {
  const WarpValues& values = warp_exchange(~0u, to_bits(value), at);
  T all[32];
  for (int32_t i = 0; i < 32; ++i) all[i] = from_bits<T>(values.bits[i]);
  for (int32_t distance = 16; distance > 0; distance /= 2) {
    for (int32_t i = 0; i < distance; ++i) all[i] = reduce(all[i], all[i + distance]);
  }
  return all[0];
}

}  // namespace pkv::sim

template <typename T>
T __shfl_sync(uint32_t mask, T value, int from, int width = 32, pkv::sim::Place at = pkv::sim::Place::here()) {
  return pkv::sim::shuffle(mask, value, from & (width - 1), width, at);
}
template <typename T>
T __shfl_xor_sync(uint32_t mask, T value, int flip, int width = 32, pkv::sim::Place at = pkv::sim::Place::here()) {
  return pkv::sim::shuffle(mask, value, (pkv::sim::this_lane() % width) ^ flip, width, at);
}
template <typename T>
T __shfl_down_sync(uint32_t mask, T value, unsigned by, int width = 32, pkv::sim::Place at = pkv::sim::Place::here()) {
  return pkv::sim::shuffle(mask, value, pkv::sim::this_lane() % width + static_cast<int>(by), width, at);
}
template <typename T>
T __shfl_up_sync(uint32_t mask, T value, unsigned by, int width = 32, pkv::sim::Place at = pkv::sim::Place::here()) {
  return pkv::sim::shuffle(mask, value, pkv::sim::this_lane() % width - static_cast<int>(by), width, at);
}
inline uint32_t __ballot_sync(uint32_t mask, int predicate, pkv::sim::Place at = pkv::sim::Place::here()) {
  const pkv::sim::WarpValues& values = pkv::sim::warp_exchange(mask, predicate != 0, at);
  uint32_t ballot = 0;
  for (uint32_t i = 0; i < 32; ++i) {
    if ((mask >> i & 1u) != 0 && values.bits[i] != 0) ballot |= 1u << i;
  }
  return ballot;
}
inline int __any_sync(uint32_t mask, int predicate, pkv::sim::Place at = pkv::sim::Place::here()) {
  return __ballot_sync(mask, predicate, at) != 0;
}
inline int __all_sync(uint32_t mask, int predicate, pkv::sim::Place at = pkv::sim::Place::here()) {
  return __ballot_sync(mask, predicate, at) == mask;
}

// ---- memory. Threads of a simulation take turns, so that nothing else is needed for these to be atomic.

inline void __threadfence() {}
inline void __threadfence_block() {}
template <typename T>
T __ldg(const T* at) {
  return *at;
}
template <typename T>
T atomicAdd(T* at, std::type_identity_t<T> value) {
  const T before = *at;
  *at = static_cast<T>(before + value);
  return before;
}
template <typename T>
T atomicMax(T* at, std::type_identity_t<T> value) {
  const T before = *at;
  if (before < value) *at = value;
  return before;
}
template <typename T>
T atomicMin(T* at, std::type_identity_t<T> value) {
  const T before = *at;
  if (value < before) *at = value;
  return before;
}
template <typename T>
T atomicExch(T* at, std::type_identity_t<T> value) {
  const T before = *at;
  *at = value;
  return before;
}
template <typename T>
T atomicCAS(T* at, std::type_identity_t<T> expected, std::type_identity_t<T> value) {
  const T before = *at;
  if (before == expected) *at = value;
  return before;
}

// ---- arithmetic that C++ has under other names

template <typename T>
T min(T a, T b) {
  return b < a ? b : a;
}
template <typename T>
T max(T a, T b) {
  return a < b ? b : a;
}

inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline double rsqrt(double x) { return 1.0 / std::sqrt(x); }
inline int __popc(unsigned x) { return std::popcount(x); }
inline int __popcll(unsigned long long x) { return std::popcount(x); }
inline int __ffs(unsigned x) { return x == 0 ? 0 : std::countr_zero(x) + 1; }
inline int __clz(unsigned x) { return std::countl_zero(x); }
inline float __int_as_float(int x) { return std::bit_cast<float>(x); }
inline int __float_as_int(float x) { return std::bit_cast<int>(x); }
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
