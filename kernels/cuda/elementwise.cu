// Operations that work element by element.
#include <algorithm>

#include "kernels/cuda/gpu.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.h"

namespace pkv::gpu {
namespace {

constexpr int32_t kThreads = 256;

// A thread is a column, blockIdx.y a row (and those a whole grid further).
__global__ void add_bias_kernel(TensorView x, const float* bias) {
  const int64_t column = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (column >= x.cols) return;
  for (int64_t row = blockIdx.y; row < x.rows; row += gridDim.y) x.f32_row(row)[column] += bias[column];
}

__global__ void silu_mul_kernel(TensorView gate, TensorView up) {
  const int64_t column = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (column >= gate.cols) return;
  for (int64_t row = blockIdx.y; row < gate.rows; row += gridDim.y) {
    float& z = gate.f32_row(row)[column];
    z = z / (1.0f + expf(-z)) * up.f32_row(row)[column];
  }
}

LaunchShape over_elements(const TensorView& x) {
  constexpr int64_t kMostRows = 65535;
  return {.blocks = blocks_for(x.cols, kThreads), .threads = kThreads, .blocks_y = std::min(x.rows, kMostRows)};
}

}  // namespace

void add_bias(Stream& stream, const TensorView& x, const TensorView& bias) {
  launch(stream, "add_bias", over_elements(x), add_bias_kernel, x, bias.f32());
}

void silu_mul(Stream& stream, const TensorView& gate, const TensorView& up) {
  launch(stream, "silu_mul", over_elements(gate), silu_mul_kernel, gate, up);
}

}  // namespace pkv::gpu
