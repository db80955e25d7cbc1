// Matrix products on tensor cores straight from GGUF blocks: a weight costs the device what it costs the file. A block
// decodes a tile of weights to bfloat16 in shared memory, rounds the rows' inputs likewise, and multiplies them with
// sums in float32. Outputs are the rows of a product and inputs' rows its columns, so that few rows are few columns; a
// column does not depend on how many there are.
#include <type_traits>

#include "kernels/cuda/gpu.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/matrix.cuh"
#include "kernels/cuda/weight_blocks.cuh"

namespace pkv::gpu {
namespace {

constexpr int32_t kThreads = 128;
constexpr int32_t kOutputs = kThreads / kWarp * 16;  // of a block, 16 a warp
constexpr int32_t kStep = 64;                        // inputs of a tile
constexpr int32_t kPitch = kStep + 8;                // 16-bit elements: eight rows of a matrix lie in different banks

// Sums of inputs [first, end) of a weight's rows; the parts of a product are added up in their order.
struct Inputs {
  int64_t of_part = 0;  // whole steps
  int32_t parts = 1;
};

// 32 weights of a row as bfloat16, of which those from `inputs` on are zeros. The first is a multiple of 32.
template <typename Block, int32_t kWeights>
__device__ void decode_run(const Block* row, int64_t first, int64_t inputs, uint32_t (&to)[16]) {
  for (int32_t i = 0; i < 16; ++i) {
    float pair[2];
    for (int32_t j = 0; j < 2; ++j) {
      const int64_t at = first + 2 * i + j;
      if constexpr (kWeights == 1) {
        pair[j] = at < inputs ? weight_of(row[at], 0) : 0.0f;
      } else {
        pair[j] = weight_of(row[first / kWeights], static_cast<int32_t>(at % kWeights));
      }
    }
    to[i] = pack_bf16(pair[0], pair[1]);
  }
}

// Tile of weights: outputs [first_output, + kOutputs), two threads each.
template <typename Block, int32_t kWeights>
__device__ void load_weights(const Block* weights, int64_t first_output, int64_t outputs, int64_t first, int64_t inputs,
                             uint16_t* tile) {
  const int32_t row = static_cast<int32_t>(threadIdx.x) / 2, half = static_cast<int32_t>(threadIdx.x) % 2 * 32;
  uint32_t run[16] = {};
  if (first_output + row < outputs && first + half < inputs) {
    const int64_t blocks_of_row = inputs / kWeights;
    decode_run<Block, kWeights>(weights + (first_output + row) * blocks_of_row, first + half, inputs, run);
  }
  auto* to = reinterpret_cast<uint4*>(tile + row * kPitch + half);
  for (int32_t i = 0; i < 4; ++i) to[i] = {run[4 * i], run[4 * i + 1], run[4 * i + 2], run[4 * i + 3]};
}

// Tile of inputs: rows [first_row, + kRows), zeros beyond what there is.
template <int32_t kRows>
__device__ void load_inputs(const TensorView& x, int64_t first_row, int64_t first, uint16_t* tile) {
  for (auto i = static_cast<int32_t>(threadIdx.x); i < kRows * kStep / 2; i += kThreads) {
    const int64_t row = first_row + i / (kStep / 2), input = first + i % (kStep / 2) * 2;
    const bool there = row < x.rows;
    const float a = there && input < x.cols ? x.f32_row(row)[input] : 0.0f;
    const float b = there && input + 1 < x.cols ? x.f32_row(row)[input + 1] : 0.0f;
    *reinterpret_cast<uint32_t*>(tile + i / (kStep / 2) * kPitch + i % (kStep / 2) * 2) = pack_bf16(a, b);
  }
}

// c += the warp's 16 outputs by 8 * kColumns rows, over a tile of inputs.
template <int32_t kColumns>
__device__ void multiply_tiles(const uint16_t* weights, const uint16_t* inputs, float (&c)[kColumns][4]) {
  const auto thread = static_cast<int32_t>(threadIdx.x), lane = thread % kWarp;
  const int32_t matrix = lane / 8, row = lane % 8;
  const uint16_t* own = weights + (thread / kWarp * 16 + matrix % 2 * 8 + row) * kPitch + matrix / 2 * 8;
  for (int32_t k = 0; k < kStep; k += 32) {
    uint32_t first[4], second[4];
    load_matrices(first, own + k);
    load_matrices(second, own + k + 16);
    for (int32_t column = 0; column < kColumns; ++column) {
      uint32_t right[4];  // eight rows at four times eight inputs
      load_matrices(right, inputs + (column * 8 + row) * kPitch + k + matrix * 8);
      mma_bf16(c[column], first, right[0], right[1]);
      mma_bf16(c[column], second, right[2], right[3]);
    }
  }
}

// Where part p of the sums of row r goes: out, or its own part of `partials` [parts][rows][outputs].
struct Results {
  TensorView out;
  float* partials = nullptr;  // nullptr: one part
  bool accumulate = false;

  __device__ void put(int32_t part, int64_t row, int64_t output, float sum) const {
    if (row >= out.rows || output >= out.cols) return;
    if (partials != nullptr) {
      partials[(part * out.rows + row) * out.cols + output] = sum;
      return;
    }
    float& to = out.f32_row(row)[output];
    to = accumulate ? to + sum : sum;
  }
};

// Block (x, y): outputs [x * kOutputs, ...) and part y % parts of the inputs, for rows [y / parts * 8 * kColumns, ...).
template <typename Block, int32_t kWeights, int32_t kColumns>
__global__ void __launch_bounds__(kThreads)
    packed_gemm_kernel(TensorView x, const Block* weights, Inputs parts, Results results) {
  constexpr int32_t kRows = 8 * kColumns;
  PKV_SHARED(uint4, weight_tile, kOutputs * kPitch / 8);
  PKV_SHARED(uint4, input_tile, kRows * kPitch / 8);
  auto* const left = reinterpret_cast<uint16_t*>(weight_tile);
  auto* const right = reinterpret_cast<uint16_t*>(input_tile);
  const auto part = static_cast<int32_t>(blockIdx.y) % parts.parts;
  const int64_t first_row = int64_t{blockIdx.y} / parts.parts * kRows, first_output = int64_t{blockIdx.x} * kOutputs;
  const int64_t begin = part * parts.of_part, end = min(x.cols, begin + parts.of_part);
  float c[kColumns][4] = {};
  for (int64_t first = begin; first < end; first += kStep) {
    __syncthreads();  // whoever reads the tiles before
    load_weights<Block, kWeights>(weights, first_output, results.out.cols, first, x.cols, left);
    load_inputs<kRows>(x, first_row, first, right);
    __syncthreads();
    multiply_tiles<kColumns>(left, right, c);
  }
  const auto thread = static_cast<int32_t>(threadIdx.x), lane = thread % kWarp;
  const int64_t output = first_output + thread / kWarp * 16 + lane / 4;
  for (int32_t column = 0; column < kColumns; ++column) {
    for (int32_t i = 0; i < 4; ++i) {
      results.put(part, first_row + column * 8 + lane % 4 * 2 + i % 2, output + i / 2 * 8, c[column][i]);
    }
  }
}

__global__ void add_parts_kernel(Results results, int32_t parts) {
  const int64_t output = int64_t{blockIdx.x} * kThreads + threadIdx.x, row = blockIdx.y;
  if (output >= results.out.cols) return;
  float& to = results.out.f32_row(row)[output];
  float sum = results.accumulate ? to : 0.0f;
  for (int32_t part = 0; part < parts; ++part) {
    sum += results.partials[(part * results.out.rows + row) * results.out.cols + output];
  }
  to = sum;
}

// A few rows keep a device busy only where several blocks share the inputs of an output. How they do follows from the
// weight's shape alone.
Inputs parts_of(int64_t inputs, int64_t outputs) {
  constexpr int64_t kEnoughBlocks = 512, kLeastSteps = 4;
  const int64_t steps = blocks_for(inputs, kStep);
  const int64_t wanted = blocks_for(kEnoughBlocks, blocks_for(outputs, kOutputs));
  const int64_t steps_of_part = blocks_for(steps, wanted) < kLeastSteps ? kLeastSteps : blocks_for(steps, wanted);
  return {steps_of_part * kStep, static_cast<int32_t>(blocks_for(steps, steps_of_part))};
}

// visit(std::integral_constant<int32_t, columns>()): eight rows each.
template <typename Visit>
void with_columns(int64_t rows, const Visit& visit) {
  if (rows <= 8) return visit(std::integral_constant<int32_t, 1>());
  if (rows <= 16) return visit(std::integral_constant<int32_t, 2>());
  if (rows <= 32) return visit(std::integral_constant<int32_t, 4>());
  visit(std::integral_constant<int32_t, 8>());
}

}  // namespace

void packed_gemm(Stream& stream, const TensorView& x, WeightType type, const void* weight, bool accumulate,
                 const TensorView& out) {
  if (x.rows == 0) return;
  const Inputs parts = parts_of(x.cols, out.cols);
  const size_t partial_bytes = sizeof(float) * static_cast<size_t>(parts.parts * out.rows * out.cols);
  const Scratch scratch(stream, parts.parts > 1 ? partial_bytes : 1);
  const Results results{out, parts.parts > 1 ? scratch.as<float>() : nullptr, accumulate};
  with_weight_blocks(type, [&](auto block, auto weights) {
    with_columns(x.rows, [&](auto columns) {
      using Block = typename decltype(block)::type;
      constexpr int32_t kColumns = decltype(columns)::value;
      launch(stream, "packed_gemm",
             {.blocks = blocks_for(out.cols, kOutputs),
              .threads = kThreads,
              .blocks_y = blocks_for(x.rows, 8 * kColumns) * parts.parts},
             packed_gemm_kernel<Block, decltype(weights)::value, kColumns>, x, static_cast<const Block*>(weight), parts,
             results);
    });
  });
  if (parts.parts == 1) return;
  launch(stream, "packed_gemm: sums",
         {.blocks = blocks_for(out.cols, kThreads), .threads = kThreads, .blocks_y = out.rows}, add_parts_kernel,
         results, parts.parts);
}

}  // namespace pkv::gpu
