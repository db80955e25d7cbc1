// Weights of GGUF formats to float32, a thread a weight: many of them, or rows of a table. And to bfloat16, for
// products, as rows of inputs are.
#include "kernels/cuda/gpu.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/matrix.cuh"
#include "kernels/cuda/weight_blocks.cuh"

namespace pkv::gpu {
namespace {

constexpr int32_t kThreads = 256;
constexpr int64_t kMostRows = 65535;  // of a grid

template <typename Block, int32_t kWeights>
__global__ void decode_kernel(const Block* blocks, int64_t count, float* out) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i < count) out[i] = weight_of(blocks[i / kWeights], static_cast<int32_t>(i % kWeights));
}

// Blocks (x, y): columns x * kThreads and following of row y of the result, and of those a whole grid further.
template <typename Block, int32_t kWeights>
__global__ void embed_kernel(const Block* table, const int32_t* ids, TensorView out) {
  const int64_t column = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (column >= out.cols) return;
  for (int64_t row = blockIdx.y; row < out.rows; row += gridDim.y) {
    const Block* blocks = table + ids[row] * (out.cols / kWeights);
    out.f32_row(row)[column] = weight_of(blocks[column / kWeights], static_cast<int32_t>(column % kWeights));
  }
}

// Blocks (x, y): pairs of inputs x * kThreads and following of row y, and of those a whole grid further. number(row, i)
// of the first `cols`; the others are zeros.
template <typename Number>
__global__ void factors_kernel(Number number, int64_t rows, int64_t cols, int64_t inputs, uint16_t* out) {
  const int64_t first = 2 * (int64_t{blockIdx.x} * kThreads + threadIdx.x);
  if (first >= inputs) return;
  for (int64_t row = blockIdx.y; row < rows; row += gridDim.y) {
    const float low = first < cols ? number(row, first) : 0.0f;
    const float high = first + 1 < cols ? number(row, first + 1) : 0.0f;
    *reinterpret_cast<uint32_t*>(out + row * inputs + first) = pack_bf16(low, high);
  }
}

template <typename Block, int32_t kWeights>
struct WeightNumbers {
  const Block* blocks = nullptr;
  int64_t blocks_of_row = 0;

  __device__ float operator()(int64_t row, int64_t i) const {
    return weight_of(blocks[row * blocks_of_row + i / kWeights], static_cast<int32_t>(i % kWeights));
  }
};

struct RowNumbers {
  TensorView x;

  __device__ float operator()(int64_t row, int64_t i) const { return x.f32_row(row)[i]; }
};

template <typename Number>
void make_factors(Stream& stream, const char* name, const Number& number, int64_t rows, int64_t cols, int64_t inputs,
                  uint16_t* out) {
  launch(stream, name,
         {.blocks = blocks_for(inputs, 2 * kThreads),
          .threads = kThreads,
          .blocks_y = rows < kMostRows ? rows : kMostRows},
         factors_kernel<Number>, number, rows, cols, inputs, out);
}

}  // namespace

void weight_factors(Stream& stream, WeightType type, const void* blocks, int64_t rows, int64_t cols, int64_t inputs,
                    uint16_t* out) {
  with_weight_blocks(type, [&](auto block, auto weights) {
    using Block = typename decltype(block)::type;
    constexpr int32_t kWeights = decltype(weights)::value;
    const WeightNumbers<Block, kWeights> numbers{static_cast<const Block*>(blocks), cols / kWeights};
    make_factors(stream, "weight_factors", numbers, rows, cols, inputs, out);
  });
}

void input_factors(Stream& stream, const TensorView& x, int64_t inputs, uint16_t* out) {
  make_factors(stream, "input_factors", RowNumbers{x}, x.rows, x.cols, inputs, out);
}

void decode_weights(Stream& stream, WeightType type, const void* blocks, int64_t count, float* out) {
  with_weight_blocks(type, [&](auto block, auto weights) {
    using Block = typename decltype(block)::type;
    launch(stream, "decode_weights", {.blocks = blocks_for(count, kThreads), .threads = kThreads},
           decode_kernel<Block, decltype(weights)::value>, static_cast<const Block*>(blocks), count, out);
  });
}

void embed(Stream& stream, WeightType type, const void* table, const int32_t* ids, const TensorView& out) {
  const LaunchShape shape{.blocks = blocks_for(out.cols, kThreads),
                          .threads = kThreads,
                          .blocks_y = out.rows < kMostRows ? out.rows : kMostRows};
  with_weight_blocks(type, [&](auto block, auto weights) {
    using Block = typename decltype(block)::type;
    launch(stream, "embed", shape, embed_kernel<Block, decltype(weights)::value>, static_cast<const Block*>(table), ids,
           out);
  });
}

}  // namespace pkv::gpu
