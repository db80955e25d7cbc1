#include "kernels/cuda/gpu.h"
#include "kernels/cuda/launch.h"
#include "tests/cuda/planted_faults.h"

namespace pkv::test {
namespace {

__global__ void reverse_kernel(Fault fault, const float* in, float* out) {
  PKV_SHARED(float, values, kFaultThreads);
  const int32_t i = static_cast<int32_t>(threadIdx.x);
  if (fault != Fault::kUnwrittenShared) values[i] = in[i];
  if (fault == Fault::kSharedOutOfBounds && i == 0) values[kFaultThreads] = 1;
  if (fault == Fault::kDifferentBarriers) {
    if (i % 2 == 0) {
      __syncthreads();
    } else {
      __syncthreads();
    }
  } else if (fault == Fault::kMissingLane) {
    if (i % gpu::kWarp != 3) __shfl_xor_sync(gpu::kAllLanes, i, 1);
    __syncthreads();
  } else if (fault != Fault::kRemovedBarrier) {
    __syncthreads();
  }
  out[i] = values[kFaultThreads - 1 - i];
  if (fault == Fault::kGlobalOutOfBounds && i == 0) out[kFaultThreads] = 1;
}

__global__ void sum_kernel(const float* in, float* out) {
  const float sum = gpu::block_sum(in[threadIdx.x]);
  const float again = gpu::block_sum(in[blockDim.x - 1 - threadIdx.x]);  // the same shared array once more
  if (threadIdx.x == 0) out[0] = sum == again ? sum : -1;
}

__global__ void use_shared_kernel(float* out) {
  PKV_DYNAMIC_SHARED(float, values);
  if (threadIdx.x == 0) out[0] = values[0];
}

__global__ void warp_words_kernel(int32_t* out) {
  const int32_t lane = static_cast<int32_t>(threadIdx.x);
  out[lane] = static_cast<int32_t>(__ballot_sync(gpu::kAllLanes, lane % 2));
  out[32 + lane] = __shfl_down_sync(gpu::kAllLanes, lane, 1);
  out[64 + lane] = __shfl_up_sync(gpu::kAllLanes, lane, 1, 8);
  out[96 + lane] = __shfl_sync(gpu::kAllLanes, lane, 5, 16);
  out[128 + lane] = __shfl_xor_sync(gpu::kAllLanes, lane, 3);
  // Halves of a warp do different things at once.
  if (lane < 16) {
    out[160 + lane] = __shfl_xor_sync(0x0000ffffu, lane, 1);
  } else {
    out[160 + lane] = __all_sync(0xffff0000u, lane >= 16) + __any_sync(0xffff0000u, lane < 16);
  }
  out[192 + lane] = gpu::warp_max(lane ^ 21);
}

}  // namespace

void reverse(gpu::Stream& stream, Fault fault, const float* in, float* out) {
  gpu::launch(stream, "reverse", {.blocks = 1, .threads = kFaultThreads}, reverse_kernel, fault, in, out);
}

void sum(gpu::Stream& stream, const float* in, float* out) {
  gpu::launch(stream, "sum", {.blocks = 1, .threads = kFaultThreads}, sum_kernel, in, out);
}

void use_shared(gpu::Stream& stream, int64_t bytes, float* out) {
  gpu::launch(stream, "use_shared", {.blocks = 1, .threads = 32, .shared_bytes = static_cast<size_t>(bytes)},
              use_shared_kernel, out);
}

void warp_words(gpu::Stream& stream, int32_t* out) {
  gpu::launch(stream, "warp_words", {.blocks = 1, .threads = 32}, warp_words_kernel, out);
}

}  // namespace pkv::test
