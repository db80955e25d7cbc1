// How a warp rounds an entry to its lane's format and writes it: the value at once; of the key what is to be stored,
// for keys of many slots are best written dimension by dimension.
#pragma once

#include <cstdint>

#include "kernels/cuda/gpu.h"
#include "kernels/cuda/mixing.cuh"
#include "kernels/cuda/page_reader.cuh"
#include "kernels/entry_codes.h"

namespace pkv::gpu {

// What all lanes of a warp have seen together.
__device__ inline NumberRange range_of_warp(const NumberRange& own) {
  return {.lowest = -warp_max(-own.lowest), .highest = warp_max(own.highest)};
}

// A scale for numbers of that range, as a page has it.
__device__ inline uint16_t make_scale(ElementType type, const NumberRange& own) {
  return float_to_half(scale_for(type, range_of_warp(own)));
}

// Of numbers below `scale`.
__device__ inline int32_t make_code(ElementType type, float number, uint16_t scale) {
  return code_of(type, number * inverse_of(half_to_float(scale)));
}

// The value at `slot`, [head_dim] in memory that is the warp's alone.
template <typename Entries>
__device__ void read_value(const Entries& entries, int32_t slot, int32_t head_dim, float* value) {
  const auto lane = static_cast<int32_t>(threadIdx.x) % kWarp;
  const auto from = entries.value(slot);
  __syncwarp();  // whoever reads what was there
  for (int32_t first = 0; first < head_dim; first += kWarp) {
    const int32_t count = min(kWarp, head_dim - first);
    float number = lane < count ? from[first + lane] : 0.0f;
    if constexpr (Entries::kCodes) number = mixed_by_warp(number, count);
    if (lane < count) value[first + lane] = number;
  }
  __syncwarp();
}

// value [head_dim].
template <typename Entries>
__device__ void write_value(const Entries& entries, int32_t slot, const float* value, int32_t head_dim) {
  const auto lane = static_cast<int32_t>(threadIdx.x) % kWarp;
  if constexpr (Entries::kCodes) {
    constexpr int32_t kGroup = CodedValue::kCodesOfScale;
    const auto pairs = entries.stored_value(slot);
    for (int32_t first = 0; first < head_dim; first += kGroup) {
      const int32_t count = min(kGroup, head_dim - first);
      const float mixed = mixed_by_warp(lane < count ? value[first + lane] : 0.0f, count);
      const float number = lane < count ? mixed * (1.0f / static_cast<float>(mixed_at_once(count))) : 0.0f;
      NumberRange range;
      range.add(number);
      const uint16_t scale = make_scale(ElementType::kI4, range);
      const int32_t code = make_code(ElementType::kI4, number, scale);
      const int32_t next = __shfl_down_sync(kAllLanes, code, 1);
      if (lane < count && lane % 2 == 0) {
        pairs.stored((first + lane) / 2) = static_cast<uint8_t>((code & 15) | next << 4);
      }
      if (lane == 0) entries.value_scales(slot).stored(first / kGroup) = scale;
    }
  } else {
    const auto to = entries.value(slot);
    for (int32_t i = lane; i < head_dim; i += kWarp) to.set(i, value[i]);
  }
}

// Makes of a key [head_dim], in memory that is the warp's alone, what write_key() takes: itself, or its codes, whose
// scale is written.
template <typename Entries>
__device__ void round_key(const Entries& entries, int32_t slot, float* key, int32_t head_dim) {
  if constexpr (Entries::kCodes) {
    const auto lane = static_cast<int32_t>(threadIdx.x) % kWarp;
    mix_by_warp(head_dim, [key](int32_t i) -> float& { return key[i]; });
    const float factor = 1.0f / static_cast<float>(mixed_at_once(head_dim));
    NumberRange range;
    for (int32_t i = lane; i < head_dim; i += kWarp) range.add(key[i] * factor);
    const uint16_t scale = make_scale(ElementType::kI8, range);
    for (int32_t i = lane; i < head_dim; i += kWarp) {
      key[i] = static_cast<float>(make_code(ElementType::kI8, key[i] * factor, scale));
    }
    if (lane == 0) entries.key_scale(slot).stored(0) = scale;
    __syncwarp();
  }
}

// A dimension of what round_key() made.
template <typename Entries>
__device__ void write_key(const Entries& entries, int32_t slot, int32_t dimension, float rounded) {
  entries.stored_key(slot).stored(dimension) = Entries::Key::store(rounded);
}

}  // namespace pkv::gpu
