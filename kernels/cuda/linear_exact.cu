// Matrix products in float32 on ordinary cores, for exact mode. An element is a sum over the inputs in one fixed order,
// whatever the number of rows: kStep of them first, then the sums of the steps.
#include "kernels/cuda/gpu.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.h"

namespace pkv::gpu {
namespace {

// A block's part of the result, and the inputs it holds at a time.
constexpr int32_t kOutputs = 64, kRows = 16, kStep = 32;
constexpr int32_t kThreads = 256;
constexpr int32_t kRowsOfThread = kOutputs * kRows / kThreads;  // at one output
constexpr int32_t kPitch = kStep + 1;                           // spreads what lies kStep apart over the banks

// tile[r][i] = from(first_row + r)[first + i] for the rows below `rows` and inputs below `inputs`, zeros elsewhere.
template <typename Row>
__device__ void load_tile(int32_t tile_rows, int64_t first_row, int64_t rows, int64_t first, int64_t inputs,
                          const Row& row, float* tile) {
  for (auto i = static_cast<int32_t>(threadIdx.x); i < tile_rows * kStep; i += kThreads) {
    const int32_t r = i / kStep, c = i % kStep;
    const bool there = first_row + r < rows && first + c < inputs;
    tile[r * kPitch + c] = there ? row(first_row + r)[first + c] : 0.0f;
  }
}

// Block (x, y): outputs [x * kOutputs, ...) of rows [y * kRows, ...) and of those a whole grid further.
__global__ void __launch_bounds__(kThreads)
    linear_exact_kernel(TensorView x, const float* weight, bool accumulate, TensorView out) {
  PKV_SHARED(float, inputs, kRows* kPitch);
  PKV_SHARED(float, weights, kOutputs* kPitch);
  const int32_t output = static_cast<int32_t>(threadIdx.x) % kOutputs;
  const int32_t first_of_thread = static_cast<int32_t>(threadIdx.x) / kOutputs * kRowsOfThread;
  const int64_t first_output = int64_t{blockIdx.x} * kOutputs;
  for (int64_t first_row = int64_t{blockIdx.y} * kRows; first_row < x.rows; first_row += int64_t{gridDim.y} * kRows) {
    float sums[kRowsOfThread] = {};
    for (int64_t first = 0; first < x.cols; first += kStep) {
      load_tile(
          kRows, first_row, x.rows, first, x.cols, [&](int64_t r) { return x.f32_row(r); }, inputs);
      load_tile(
          kOutputs, first_output, out.cols, first, x.cols, [&](int64_t n) { return weight + n * x.cols; }, weights);
      __syncthreads();
      float step[kRowsOfThread] = {};
      for (int32_t i = 0; i < kStep; ++i) {
        const float w = weights[output * kPitch + i];
        for (int32_t r = 0; r < kRowsOfThread; ++r) step[r] += inputs[(first_of_thread + r) * kPitch + i] * w;
      }
      for (int32_t r = 0; r < kRowsOfThread; ++r) sums[r] += step[r];
      __syncthreads();
    }
    if (first_output + output >= out.cols) continue;
    for (int32_t r = 0; r < kRowsOfThread; ++r) {
      const int64_t row = first_row + first_of_thread + r;
      if (row >= x.rows) break;
      float& to = out.f32_row(row)[first_output + output];
      to = accumulate ? to + sums[r] : sums[r];
    }
  }
}

}  // namespace

void linear_exact(Stream& stream, const TensorView& x, const float* weight, bool accumulate, const TensorView& out) {
  constexpr int64_t kMostBlocks = 65535;
  const int64_t row_blocks = blocks_for(x.rows, kRows);
  launch(stream, "linear",
         {.blocks = blocks_for(out.cols, kOutputs),
          .threads = kThreads,
          .blocks_y = row_blocks < kMostBlocks ? row_blocks : kMostBlocks},
         linear_exact_kernel, x, weight, accumulate, out);
}

}  // namespace pkv::gpu
