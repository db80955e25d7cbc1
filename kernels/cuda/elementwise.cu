// Operations on rows, element by element: norms, biases, rotary embedding, activations. All in float32.
#include <algorithm>

#include "kernels/cuda/gpu.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/rotation.cuh"

namespace pkv::gpu {
namespace {

constexpr int32_t kThreads = 256;

// A thread is a column, blockIdx.y a row (and those a whole grid further).
__global__ void fill_kernel(TensorView to, float value) {
  const int64_t column = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (column >= to.cols) return;
  for (int64_t row = blockIdx.y; row < to.rows; row += gridDim.y) to.f32_row(row)[column] = value;
}

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

// A block a row.
__global__ void __launch_bounds__(kThreads)
    rms_norm_kernel(TensorView x, const float* gain, float eps, TensorView out) {
  const float* row = x.f32_row(blockIdx.x);
  float squares = 0;
  for (int64_t c = threadIdx.x; c < x.cols; c += kThreads) squares += row[c] * row[c];
  const float factor = 1.0f / sqrtf(block_sum(squares) / static_cast<float>(x.cols) + eps);
  float* to = out.f32_row(blockIdx.x);
  for (int64_t c = threadIdx.x; c < x.cols; c += kThreads) to[c] = row[c] * factor * gain[c];
}

// A block a row, whose position is `position` where positions are null: its angles once, then all of its heads.
__global__ void __launch_bounds__(kThreads)
    rope_kernel(TensorView x, const int32_t* positions, int32_t position, RopeSpec spec) {
  PKV_DYNAMIC_SHARED(Angle, angles);
  const int32_t at = positions == nullptr ? position : positions[blockIdx.x];
  for (auto i = static_cast<int32_t>(threadIdx.x); i < spec.pairs; i += kThreads) angles[i] = angle_of(spec, at, i);
  __syncthreads();
  const auto pairs = static_cast<int32_t>(x.cols / spec.head_dim) * spec.pairs;
  for (auto p = static_cast<int32_t>(threadIdx.x); p < pairs; p += kThreads) {
    const int32_t head = p / spec.pairs, i = p % spec.pairs;
    float* row = x.f32_row(blockIdx.x) + int64_t{head} * spec.head_dim;
    const PairDims dims = pair_dims(spec, i);
    const Pair pair = turned({row[dims.first], row[dims.second]}, angles[i]);
    row[dims.first] = pair.first;
    row[dims.second] = pair.second;
  }
}

__global__ void set_page_ids_kernel(int32_t* page_ids, const PageEdit* edits, int32_t count) {
  const auto i = static_cast<int32_t>(blockIdx.x * kThreads + threadIdx.x);
  if (i < count) page_ids[edits[i].at] = edits[i].page;
}

LaunchShape over_elements(const TensorView& x) {
  constexpr int64_t kMostRows = 65535;
  return {.blocks = blocks_for(x.cols, kThreads), .threads = kThreads, .blocks_y = std::min(x.rows, kMostRows)};
}

void launch_rope(Stream& stream, const TensorView& x, const int32_t* positions, int32_t position,
                 const RopeSpec& spec) {
  const size_t angles = sizeof(Angle) * static_cast<size_t>(spec.pairs);
  launch(stream, "rope", {.blocks = x.rows, .threads = kThreads, .shared_bytes = angles}, rope_kernel, x, positions,
         position, spec);
}

}  // namespace

void fill(Stream& stream, const TensorView& to, float value) {
  launch(stream, "fill", over_elements(to), fill_kernel, to, value);
}

void add_bias(Stream& stream, const TensorView& x, const TensorView& bias) {
  launch(stream, "add_bias", over_elements(x), add_bias_kernel, x, bias.f32());
}

void silu_mul(Stream& stream, const TensorView& gate, const TensorView& up) {
  launch(stream, "silu_mul", over_elements(gate), silu_mul_kernel, gate, up);
}

void rms_norm(Stream& stream, const TensorView& x, const TensorView& gain, float eps, const TensorView& out) {
  launch(stream, "rms_norm", {.blocks = x.rows, .threads = kThreads}, rms_norm_kernel, x, gain.f32(), eps, out);
}

void rope(Stream& stream, const TensorView& x, const int32_t* positions, const RopeSpec& spec) {
  launch_rope(stream, x, positions, 0, spec);
}

void turn_rows(Stream& stream, const TensorView& x, int32_t delta, const RopeSpec& spec) {
  launch_rope(stream, x, nullptr, delta, turning(spec));
}

void set_page_ids(Stream& stream, int32_t* page_ids, const PageEdit* edits, int32_t count) {
  launch(stream, "set_page_ids", {.blocks = blocks_for(count, kThreads), .threads = kThreads}, set_page_ids_kernel,
         page_ids, edits, count);
}

}  // namespace pkv::gpu
