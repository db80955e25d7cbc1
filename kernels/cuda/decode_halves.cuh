// Tiles of f16 entries for attend_matrix.cu.
#pragma once

#include <cstdint>

#include "kernels/cuda/decode_state.cuh"
#include "kernels/cuda/gpu.h"
#include "kernels/cuda/matrix.cuh"
#include "kernels/cuda/page_reader.cuh"

namespace pkv::gpu::decode {

// In shared memory: keys [head_dim][2 runs], the two of a dimension swapped for every other four dimensions; values
// [kTile][head_dim / 8 + 1]. Eight rows of a matrix then lie in different banks.
template <int32_t kSteps>
class HalfTiles {
  static constexpr int32_t kDims = kSteps * 16, kPitch = kDims / 8 + 1, kKeyUnits = kDims * 2;

  __device__ static int32_t key(int32_t dim, int32_t run) { return 2 * dim + (run ^ (dim >> 2 & 1)); }
  __device__ static int32_t value(int32_t slot, int32_t unit) { return kKeyUnits + slot * kPitch + unit; }

 public:
  static constexpr int32_t kUnits = kKeyUnits + kTile * kPitch;

  __device__ HalfTiles(const LaneEntries<KvDtype::kF16>& entries, const Queries<kSteps>& queries, float scale)
      : entries_(entries), queries_(queries), scale_(scale) {}

  // The dimension of a row of product `step`.
  __device__ static int32_t dimension(int32_t step, int32_t row) { return step * 16 + row; }

  // Slots [first, first + kTile), those from `end` on as zeros. All lanes of a warp.
  __device__ void start(int32_t first, int32_t end, Unit* tile) const {
    const auto lane = static_cast<int32_t>(threadIdx.x) % kWarp;
    constexpr int32_t kRuns = kTile / kRun;
    const int32_t run = lane % kRuns, slot = first + run * kRun;
    const auto keys = entries_.stored_key(slot < end ? slot : first);
    for (int32_t dim = lane / kRuns; dim < kDims; dim += kWarp / kRuns) {
      copy_16(tile + key(dim, run), &keys.stored(dim), slot < end);
    }
    for (int32_t i = lane; i < kTile * (kDims / 8); i += kWarp) {
      const int32_t at = i / (kDims / 8), unit = i % (kDims / 8);
      const bool there = first + at < end;
      copy_16(tile + value(at, unit), &entries_.stored_value(there ? first + at : first).stored(unit * 8), there);
    }
    end_copy_group();
  }

  __device__ void attend(const Unit* tile, int32_t slots, WarpState<kSteps>& state) const {
    const auto lane = static_cast<int32_t>(threadIdx.x) % kWarp;
    const int32_t g = lane / 4, matrix = lane / 8, row = lane % 8;
    float scores[4] = {};
    for (int32_t step = 0; step < kSteps; ++step) {
      uint32_t keys[4];  // rows are dimensions in memory, slots in the product
      load_transposed(keys, tile + key(step * 16 + matrix / 2 * 8 + row, matrix % 2));
      mma_f16(scores, keys, queries_.low[step][0], queries_.low[step][1]);
      mma_f16(scores, keys, queries_.high[step][0], queries_.high[step][1]);
    }
    for (int32_t i = 0; i < 4; ++i) scores[i] = g + i / 2 * 8 < slots ? scores[i] * scale_ : -INFINITY;
    float weights[4], kept[2];
    weigh(scores, state, weights, kept);
    const uint32_t first_slots = transposed(pack_halves(weights[0], weights[1]));
    const uint32_t last_slots = transposed(pack_halves(weights[2], weights[3]));
    for (int32_t step = 0; step < kSteps; ++step) {
      uint32_t values[4];  // rows are slots in memory, dimensions in the product
      load_transposed(values, tile + value(matrix / 2 * 8 + row, step * 2 + matrix % 2));
      for (int32_t i = 0; i < 4; ++i) state.values[step][i] *= kept[i % 2];
      mma_f16(state.values[step], values, first_slots, last_slots);
    }
  }

 private:
  LaneEntries<KvDtype::kF16> entries_;
  const Queries<kSteps>& queries_;
  float scale_;
};

}  // namespace pkv::gpu::decode
