// Whether the wrappers of what is not C++ (kernels/cuda/matrix.cuh, gpu.h) do on a device what their comments say:
// against plain loops on the host, which know nothing of how fragments lie. For the simulator's tests and for
// cuda_selftest on a GPU.
#pragma once

#include <span>
#include <string>

#include "kernels/cuda/stream.h"

namespace pkv::test {

struct WrapperCheck {
  const char* name;
  std::string (*run)(gpu::Stream& stream);  // what is wrong; empty: nothing
};

std::span<const WrapperCheck> wrapper_checks();

}  // namespace pkv::test
