// Weights of GGUF formats to float32, a thread a weight: many of them, or rows of a table.
#include "kernels/cuda/gpu.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/weight_blocks.cuh"

namespace pkv::gpu {
namespace {

constexpr int32_t kThreads = 256;

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

}  // namespace

void decode_weights(Stream& stream, WeightType type, const void* blocks, int64_t count, float* out) {
  with_weight_blocks(type, [&](auto block, auto weights) {
    using Block = typename decltype(block)::type;
    launch(stream, "decode_weights", {.blocks = blocks_for(count, kThreads), .threads = kThreads},
           decode_kernel<Block, decltype(weights)::value>, static_cast<const Block*>(blocks), count, out);
  });
}

void embed(Stream& stream, WeightType type, const void* table, const int32_t* ids, const TensorView& out) {
  constexpr int64_t kMostRows = 65535;
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
