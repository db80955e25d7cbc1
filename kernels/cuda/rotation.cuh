// Rotary position embedding of one pair of dimensions (RopeSpec, kernels/operation_args.h).
#pragma once

#include <cstdint>

#include "kernels/cuda/gpu.h"
#include "kernels/operation_args.h"

namespace pkv::gpu {

struct Angle {
  float cosine = 1;
  float sine = 0;
};

// What pair i turns by at a position.
__device__ inline Angle angle_of(const RopeSpec& spec, int32_t position, int32_t i) {
  const float angle = static_cast<float>(position) * spec.inv_freq[i];
  return {cosf(angle) * spec.magnitude, sinf(angle) * spec.magnitude};
}

// The dimensions of pair i.
struct PairDims {
  int32_t first = 0;
  int32_t second = 0;
};
__device__ inline PairDims pair_dims(const RopeSpec& spec, int32_t i) {
  if (spec.pairing == RopePairing::kAdjacent) return {2 * i, 2 * i + 1};
  return {i, i + spec.pairs};
}

struct Pair {
  float first = 0;
  float second = 0;
};
__device__ inline Pair turned(const Pair& pair, const Angle& by) {
  return {pair.first * by.cosine - pair.second * by.sine, pair.first * by.sine + pair.second * by.cosine};
}

// For what was rotated before: the magnitude has been multiplied in.
inline RopeSpec turning(RopeSpec spec) {
  spec.magnitude = 1;
  return spec;
}

}  // namespace pkv::gpu
