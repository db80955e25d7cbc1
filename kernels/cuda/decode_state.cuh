// What a block knows that attends single rows on tensor cores (attend_matrix.cu): queries, and what its warps have of
// the tiles of slots they went through.
#pragma once

#include <cstdint>

#include "kernels/cuda/attend_walk.cuh"
#include "kernels/cuda/gpu.h"
#include "kernels/cuda/matrix.cuh"

namespace pkv::gpu::decode {

constexpr int32_t kHeads = 8;   // columns of a product
constexpr int32_t kTile = 16;   // slots of one
constexpr int32_t kRun = 8;     // slots that lie together in a page
constexpr int32_t kStages = 2;  // tiles that a warp has room for
constexpr int32_t kThreads = 128;
constexpr int32_t kWarps = kThreads / kWarp;

// Of 16 bytes each.
using Unit = uint4;

// What a warp has of its tiles: of the columns 2t and 2t + 1 the largest score, the sum over the thread's own slots,
// and the sums of values, C fragments of 16 dimensions each.
template <int32_t kSteps>
struct WarpState {
  float largest[2], sum[2];
  float values[kSteps][4];
};

// The queries of column g as B fragments: register pairs of each 16 dimensions, and what rounding left of them.
template <int32_t kSteps>
struct Queries {
  uint32_t high[kSteps][2], low[kSteps][2];
};
template <int32_t kSteps>
__device__ Queries<kSteps> load_query_fragments(const float* row, const QueryHeads& heads) {
  const auto lane = static_cast<int32_t>(threadIdx.x) % kWarp;
  const int32_t g = lane / 4, t = lane % 4;
  Queries<kSteps> queries;
  const float* from = row + static_cast<int64_t>(heads.first + g) * kSteps * 16;
  for (int32_t step = 0; step < kSteps; ++step) {
    for (int32_t i = 0; i < 2; ++i) {
      const int32_t dim = step * 16 + i * 8 + 2 * t;
      const float a = g < heads.count ? from[dim] : 0.0f, b = g < heads.count ? from[dim + 1] : 0.0f;
      const uint32_t high = pack_halves(a, b);
      queries.high[step][i] = high;
      queries.low[step][i] = pack_halves(a - half_to_float(static_cast<uint16_t>(high & 0xffffu)),
                                         b - half_to_float(static_cast<uint16_t>(high >> 16)));
    }
  }
  return queries;
}

// The largest of what lanes of equal t have, that is over the rows of a C fragment.
__device__ float over_rows_max(float value) {
  for (int32_t distance = 4; distance < kWarp; distance *= 2) {
    value = fmaxf(value, __shfl_xor_sync(kAllLanes, value, distance));
  }
  return value;
}
__device__ float over_rows_sum(float value) {
  for (int32_t distance = 4; distance < kWarp; distance *= 2) value += __shfl_xor_sync(kAllLanes, value, distance);
  return value;
}

// The weights of a tile's scores, a C fragment whose -infinities are of nobody, against the largest score there was or
// is; `kept` is what earlier weights are worth by that.
template <int32_t kSteps>
__device__ void weigh(const float (&scores)[4], WarpState<kSteps>& state, float (&weights)[4], float (&kept)[2]) {
  for (int32_t column = 0; column < 2; ++column) {
    const float first = scores[column], second = scores[column + 2], before = state.largest[column];
    const float largest = fmaxf(before, over_rows_max(fmaxf(first, second)));
    kept[column] = __expf(before - largest);
    weights[column] = __expf(first - largest);
    weights[column + 2] = __expf(second - largest);
    state.largest[column] = largest;
    state.sum[column] = state.sum[column] * kept[column] + weights[column] + weights[column + 2];
  }
}

// The warps' states added up in their order: values [kHeads][head_dim]. `room` [kWarps][kHeads][2].
// `dimension(step, row)`: of a row of a C fragment.
template <int32_t kSteps, typename Dimension>
__device__ Attended<kHeads> add_states(const WarpState<kSteps>& state, float* room, float* values,
                                       const Dimension& dimension) {
  const auto thread = static_cast<int32_t>(threadIdx.x), lane = thread % kWarp, warp = thread / kWarp;
  const int32_t g = lane / 4, t = lane % 4, d = kSteps * 16;
  for (int32_t column = 0; column < 2; ++column) {
    const float sum = over_rows_sum(state.sum[column]);
    if (g != 0) continue;
    float* of_head = room + (warp * kHeads + 2 * t + column) * 2;
    of_head[0] = state.largest[column];
    of_head[1] = sum;
  }
  __syncthreads();
  Attended<kHeads> attended;
  for (int32_t h = 0; h < kHeads; ++h) {
    attended.largest[h] = -INFINITY;
    attended.sum[h] = 0;
    for (int32_t w = 0; w < kWarps; ++w) {
      attended.largest[h] = fmaxf(attended.largest[h], room[(w * kHeads + h) * 2]);
    }
    for (int32_t w = 0; w < kWarps; ++w) {
      const float* of_warp = room + (w * kHeads + h) * 2;
      attended.sum[h] += of_warp[1] * __expf(of_warp[0] - attended.largest[h]);
    }
  }
  for (int32_t w = 0; w < kWarps; ++w) {
    if (w == warp) {
      for (int32_t column = 0; column < 2; ++column) {
        const int32_t head = 2 * t + column;
        float largest = attended.largest[0];
        for (int32_t h = 1; h < kHeads; ++h) largest = h == head ? attended.largest[h] : largest;
        const float weight = __expf(state.largest[column] - largest);
        for (int32_t step = 0; step < kSteps; ++step) {
          for (int32_t half = 0; half < 2; ++half) {
            float& sum = values[head * d + dimension(step, half * 8 + g)];
            const float own = state.values[step][column + 2 * half] * weight;
            sum = w == 0 ? own : sum + own;
          }
        }
      }
    }
    __syncthreads();
  }
  return attended;
}

// Slots [begin, end) of a lane: warp w has tiles w, w + kWarps, ... `Tiles` starts copies of one and attends to it.
template <int32_t kSteps, typename Tiles>
__device__ WarpState<kSteps> walk_tiles(const Tiles& tiles, int32_t begin, int32_t end, Unit* room) {
  const auto warp = static_cast<int32_t>(threadIdx.x) / kWarp;
  Unit* const own = room + warp * kStages * Tiles::kUnits;
  WarpState<kSteps> state;
  for (int32_t column = 0; column < 2; ++column) state.largest[column] = -INFINITY, state.sum[column] = 0;
  for (int32_t step = 0; step < kSteps; ++step) {
    for (float& value : state.values[step]) value = 0;
  }
  constexpr int32_t kStride = kWarps * kTile;
  int32_t stage = 0;
  const int32_t first = begin + warp * kTile;
  if (first < end) tiles.start(first, end, own);
  for (int32_t tile = first; tile < end; tile += kStride) {
    const int32_t next = tile + kStride;
    if (next < end) {
      tiles.start(next, end, own + (stage ^ 1) * Tiles::kUnits);
      wait_for_copies<1>();
    } else {
      wait_for_copies<0>();
    }
    __syncwarp();
    tiles.attend(own + stage * Tiles::kUnits, end - tile, state);
    __syncwarp();  // the stage is filled anew
    stage ^= 1;
  }
  __syncthreads();  // whoever reads what was there
  return state;
}

}  // namespace pkv::gpu::decode
