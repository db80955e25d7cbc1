// Tiles of entries of codes (kernels/entry_codes.h) for attend_matrix.cu. Codes become f16 in registers, which is
// exact, on their way from shared memory to a product: of keys two slots lie in a matrix element of 16 bits, of values
// four dimensions, and they are taken apart after the transposed load. Scores are multiplied by the keys' scales;
// weights by the values', and by a power of two that keeps them within f16.
#pragma once

#include <cstdint>

#include "kernels/cuda/decode_state.cuh"
#include "kernels/cuda/gpu.h"
#include "kernels/cuda/matrix.cuh"
#include "kernels/cuda/page_reader.cuh"

namespace pkv::gpu::decode {

// In shared memory: keys [head_dim][kTile] of a byte; values, of each group of 32 dimensions first the even slots, then
// the odd ones; scales of keys [kTile], scales of values [groups][kTile].
template <int32_t kSteps>
class CodeTiles {
  static constexpr int32_t kDims = kSteps * 16, kGroups = kDims / CodedValue::kCodesOfScale;
  static constexpr int32_t kValues = kDims, kScales = kValues + (kGroups + 1) / 2 * 2 * kTile;
  static constexpr int32_t kRuns = kTile / kRun;

 public:
  static constexpr int32_t kUnits = kScales + (1 + kGroups) * kRuns;

  // `queries`: of the mixed ones.
  __device__ CodeTiles(const LaneEntries<KvDtype::kK8V4>& entries, const Queries<kSteps>& queries, float scale)
      : entries_(entries), queries_(queries), scale_(scale) {}

  __device__ static int32_t dimension(int32_t step, int32_t row) {
    return step / 2 * 32 + row % 8 * 4 + step % 2 * 2 + row / 8;
  }

  // Slots [first, first + kTile). Of those from `end` on values are zeros, and the others anything. All lanes of a
  // warp.
  __device__ void start(int32_t first, int32_t end, Unit* tile) const {
    const auto lane = static_cast<int32_t>(threadIdx.x) % kWarp;
    const int32_t run = lane % kRuns, slot = first + run * kRun;
    const bool run_there = slot < end;
    const int32_t of_run = run_there ? slot : first;
    const auto keys = entries_.stored_key(of_run);
    for (int32_t dim = lane / kRuns; dim < kDims; dim += kWarp / kRuns) {
      copy_8(reinterpret_cast<std::byte*>(tile + dim) + run * kRun, &keys.stored(dim), run_there);
    }
    for (int32_t i = lane; i < kTile * kGroups; i += kWarp) {
      const int32_t at = i / kGroups, group = i % kGroups;
      const bool there = first + at < end;
      copy_16(tile + kValues + group * kTile + at % 2 * (kTile / 2) + at / 2,
              &entries_.stored_value(there ? first + at : first).stored(group * 16), there);
    }
    if (lane < (1 + kGroups) * kRuns) {
      const int32_t group = lane / kRuns - 1;
      const uint16_t* from =
          group < 0 ? entries_.key_scale(of_run).first : &entries_.value_scales(of_run).stored(group);
      copy_16(tile + kScales + lane, from, run_there);
    }
    end_copy_group();
  }

  __device__ void attend(const Unit* tile, int32_t slots, WarpState<kSteps>& state) const {
    const auto lane = static_cast<int32_t>(threadIdx.x) % kWarp;
    const int32_t g = lane / 4;
    float scores[4] = {};  // of the slots 2g and 2g + 1
    for (int32_t step = 0; step < kSteps; step += 2) {
      uint32_t codes[4];
      load_transposed(codes, tile + step * 16 + lane);
      for (int32_t half = 0; half < 2; ++half) {
        uint32_t keys[4];
        halves_of_bytes(codes[2 * half], keys[0], keys[1]);
        halves_of_bytes(codes[2 * half + 1], keys[2], keys[3]);
        mma_f16(scores, keys, queries_.low[step + half][0], queries_.low[step + half][1]);
        mma_f16(scores, keys, queries_.high[step + half][0], queries_.high[step + half][1]);
      }
    }
    const bool there[2] = {2 * g < slots, 2 * g + 1 < slots};
    for (int32_t i = 0; i < 4; ++i) {
      scores[i] = there[i / 2] ? scores[i] * (scale_of(tile, 0, 2 * g + i / 2) * scale_) : -INFINITY;
    }
    float weights[4], kept[2];
    weigh(scores, state, weights, kept);
    float scales[kGroups][2], largest = 0;
    for (int32_t group = 0; group < kGroups; ++group) {
      for (int32_t i = 0; i < 2; ++i) {
        scales[group][i] = there[i] ? scale_of(tile, 1 + group, 2 * g + i) : 0.0f;
        largest = fmaxf(largest, fabsf(scales[group][i]));
      }
    }
    const uint32_t exponent = __float_as_uint(over_rows_max(largest)) & 0x7f800000u;
    const float up = __uint_as_float(0x7f000000u - exponent), down = __uint_as_float(exponent);
    for (int32_t first = 0; first < kGroups; first += 2) {
      uint32_t codes[4];  // of two groups the even slots and the odd ones
      load_transposed(codes, tile + kValues + first * kTile + lane);
      for (int32_t group = first; group < min(first + 2, kGroups); ++group) {
        const float even = scales[group][0] * up, odd = scales[group][1] * up;
        const uint32_t even_slots = transposed(pack_halves(weights[0] * even, weights[1] * even));
        const uint32_t odd_slots = transposed(pack_halves(weights[2] * odd, weights[3] * odd));
        const uint32_t* of_group = codes + (group - first) * 2;
        for (int32_t half = 0; half < 2; ++half) {
          const uint32_t values[4] = {
              halves_of_nibbles(of_group[0], 2 * half), halves_of_nibbles(of_group[0], 2 * half + 1),
              halves_of_nibbles(of_group[1], 2 * half), halves_of_nibbles(of_group[1], 2 * half + 1)};
          float product[4] = {};
          mma_f16(product, values, even_slots, odd_slots);
          float(&sums)[4] = state.values[2 * group + half];
          for (int32_t i = 0; i < 4; ++i) sums[i] = sums[i] * kept[i % 2] + product[i] * down;
        }
      }
    }
  }

 private:
  // Row 0: of the keys.
  __device__ static float scale_of(const Unit* tile, int32_t row, int32_t slot) {
    return half_to_float(reinterpret_cast<const uint16_t*>(tile + kScales + row * kRuns)[slot]);
  }

  LaneEntries<KvDtype::kK8V4> entries_;
  const Queries<kSteps>& queries_;
  float scale_;
};

}  // namespace pkv::gpu::decode
