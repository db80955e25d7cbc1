// How host code starts a kernel: one function for both worlds. Under nvcc it is the CUDA runtime's launch; elsewhere
// the simulator's, which runs the kernel when the stream is next waited for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "kernels/cuda/stream.h"
#ifdef __CUDACC__
#include <cuda_runtime.h>
#else
#include "kernels/cuda/sim/sim_stream.h"
#endif

namespace pkv::gpu {

struct LaunchShape {
  int64_t blocks = 0;       // in x
  int32_t threads = 0;      // of a block, in x: at most 1024
  int64_t blocks_y = 1;     // at most 65535
  size_t shared_bytes = 0;  // dynamic, at most limits().shared_bytes together with what the kernel declares
};

// The number of blocks of `size` that hold `count`.
constexpr int64_t blocks_for(int64_t count, int64_t size) { return (count + size - 1) / size; }

// A grid without blocks is nothing to do. `name` is for errors. Arguments are copied; what they point to is device
// memory.
template <typename... Parameters, typename... Arguments>
void launch(Stream& stream, const char* name, const LaunchShape& shape, void (*kernel)(Parameters...),
            Arguments&&... arguments) {
  if (stream.failed() || shape.blocks == 0 || shape.blocks_y == 0) return;
#ifdef __CUDACC__
  const auto check = [&](cudaError_t error) {
    if (error == cudaSuccess) return true;
    stream.fail(std::string(name) + ": " + cudaGetErrorString(error));
    return false;
  };
  auto* const native = static_cast<cudaStream_t>(stream.native());
  constexpr size_t kWithoutAsking = 48 << 10;
  if (shape.shared_bytes > kWithoutAsking &&
      !check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  static_cast<int>(shape.shared_bytes)))) {
    return;
  }
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(shape.blocks), static_cast<unsigned>(shape.blocks_y));
  config.blockDim = dim3(static_cast<unsigned>(shape.threads));
  config.dynamicSmemBytes = shape.shared_bytes;
  config.stream = native;
  check(cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(std::forward<Arguments>(arguments))...));
#else
  static_cast<sim::SimStream&>(stream).launch(
      {name, shape.blocks, shape.blocks_y, shape.threads, shape.shared_bytes},
      [kernel, ... copies = static_cast<Parameters>(std::forward<Arguments>(arguments))] { kernel(copies...); });
#endif
}

}  // namespace pkv::gpu
