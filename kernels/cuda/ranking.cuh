// The best of a row: by value, descending, then by place, ascending; NaN counts as -infinity, and -0 as 0. Integers
// alone decide, so the result is the same in any order of threads.
#pragma once

#include <cstdint>

#include "kernels/cuda/gpu.h"

namespace pkv::gpu {

// Unsigned integers in the order of the values.
__device__ inline uint32_t rank_key(float value) {
  if (std::isnan(value)) value = -INFINITY;
  const uint32_t bits = __float_as_uint(value + 0.0f);  // -0 becomes 0
  return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}

// The digits that keys are looked at by, from the top: 11, 11 and 10 bits.
constexpr int32_t kBins = 2048;
constexpr int32_t kDigits = 3;
struct Digit {
  int32_t shift = 0;  // of its lowest bit
  int32_t bits = 0;
};
__device__ constexpr Digit digit_of(int32_t index) {
  return index == 0 ? Digit{21, 11} : index == 1 ? Digit{10, 11} : Digit{0, 10};
}

// histogram[bin] = how many of key(0), ..., key(n - 1) that begin with `prefix`, the digits before this one, have it
// there. All threads of the block.
template <typename Key>
__device__ void count_digit(int32_t n, int32_t index, uint32_t prefix, int32_t* histogram, const Key& key) {
  const auto thread = static_cast<int32_t>(threadIdx.x), threads = static_cast<int32_t>(blockDim.x);
  const Digit digit = digit_of(index);
  for (int32_t bin = thread; bin < kBins; bin += threads) histogram[bin] = 0;
  __syncthreads();
  for (int32_t j = thread; j < n; j += threads) {
    const uint32_t here = key(j);
    const bool of_prefix = index == 0 || here >> (digit.shift + digit.bits) == prefix;
    if (of_prefix) atomicAdd(&histogram[here >> digit.shift & ((1u << digit.bits) - 1)], 1);
  }
  __syncthreads();
}

// The bin that holds the `wanted`-th entry of a histogram, counted from its last bin, and how many the bins after it
// hold.
struct Bin {
  int32_t index = 0;
  int32_t after = 0;
};

// One warp looks for it; `count(bin)` is how many entries a bin has, at least `wanted` in all.
template <typename Count>
__device__ Bin find_bin(int32_t wanted, const Count& count) {
  constexpr int32_t kEach = kBins / kWarp;
  const auto lane = static_cast<int32_t>(threadIdx.x) % kWarp;
  const int32_t last = kBins - 1 - lane * kEach;  // a lane's own bins, from the last of all
  int32_t own = 0;
  for (int32_t i = 0; i < kEach; ++i) own += count(last - i);
  int32_t before = own;  // of the lanes up to this one
  for (int32_t distance = 1; distance < kWarp; distance *= 2) {
    const int32_t other = __shfl_up_sync(kAllLanes, before, static_cast<unsigned>(distance));
    if (lane >= distance) before += other;
  }
  Bin bin{last, before - own};
  if (bin.after < wanted && wanted <= before) {
    for (; bin.after + count(bin.index) < wanted; --bin.index) bin.after += count(bin.index);
  }
  const uint32_t found = __ballot_sync(kAllLanes, before - own < wanted && wanted <= before);
  const int32_t owner = __ffs(static_cast<int32_t>(found)) - 1;
  return {__shfl_sync(kAllLanes, bin.index, owner), __shfl_sync(kAllLanes, bin.after, owner)};
}

struct Threshold {
  uint32_t key = 0;   // of the worst that is chosen
  int32_t equal = 0;  // how many of those with that key are, in the order of their places
};

// What a block shares for it.
struct RankRoom {
  int32_t* histogram = nullptr;  // [kBins]
  int32_t* found = nullptr;      // [2]
};

// Of the `count`-th largest of key(0), ..., key(n - 1), 1 <= count <= n. All threads of the block.
template <typename Key>
__device__ Threshold find_threshold(int32_t n, int32_t count, const RankRoom& room, const Key& key) {
  const auto thread = static_cast<int32_t>(threadIdx.x);
  uint32_t prefix = 0;
  for (int32_t index = 0; index < kDigits; ++index) {
    count_digit(n, index, prefix, room.histogram, key);
    if (thread < kWarp) {
      const Bin bin = find_bin(count, [&](int32_t at) { return room.histogram[at]; });
      if (thread == 0) {
        room.found[0] = bin.index;
        room.found[1] = bin.after;
      }
    }
    __syncthreads();
    prefix = prefix << digit_of(index).bits | static_cast<uint32_t>(room.found[0]);
    count -= room.found[1];
  }
  return {prefix, count};
}

// The sum over the block's threads before this one, and over all. `room` [32].
struct RunningSum {
  int32_t before = 0;
  int32_t all = 0;
};
__device__ inline RunningSum running_sum(int32_t own, int32_t* room) {
  const auto lane = static_cast<int32_t>(threadIdx.x) % kWarp, warp = static_cast<int32_t>(threadIdx.x) / kWarp;
  int32_t up_to = own;  // of the warp's lanes up to this one
  for (int32_t distance = 1; distance < kWarp; distance *= 2) {
    const int32_t other = __shfl_up_sync(kAllLanes, up_to, static_cast<unsigned>(distance));
    if (lane >= distance) up_to += other;
  }
  __syncthreads();  // whoever reads the room of the call before
  if (lane == kWarp - 1) room[warp] = up_to;
  __syncthreads();
  RunningSum sum{up_to - own, 0};
  for (int32_t w = 0; w < static_cast<int32_t>(blockDim.x) / kWarp; ++w) {
    if (w < warp) sum.before += room[w];
    sum.all += room[w];
  }
  return sum;
}

// Calls take(i, j) for the i-th chosen place j, ascending. All threads of the block; `room` [32].
template <typename Key, typename Take>
__device__ void for_each_chosen(int32_t n, const Threshold& threshold, int32_t* room, const Key& key,
                                const Take& take) {
  constexpr int32_t kEach = 8;         // places of a thread, one after another
  constexpr int32_t kEqual = 1 << 16;  // a sum has the better ones below it, and the equal ones
  const auto thread = static_cast<int32_t>(threadIdx.x), threads = static_cast<int32_t>(blockDim.x);
  int32_t taken = 0, equal_left = threshold.equal;
  for (int32_t first = 0; first < n; first += threads * kEach) {
    const int32_t begin = first + thread * kEach, end = min(n, begin + kEach);
    int32_t own = 0;
    for (int32_t j = begin; j < end; ++j) {
      const uint32_t here = key(j);
      own += here > threshold.key ? 1 : here == threshold.key ? kEqual : 0;
    }
    const RunningSum sum = running_sum(own, room);
    int32_t better = sum.before % kEqual, equal = sum.before / kEqual;
    if (own != 0) {
      for (int32_t j = begin; j < end; ++j) {
        const uint32_t here = key(j);
        if (here < threshold.key) continue;
        const bool is_equal = here == threshold.key;
        if (!is_equal || equal < equal_left) take(taken + better + min(equal, equal_left), j);
        (is_equal ? equal : better) += 1;
      }
    }
    taken += sum.all % kEqual + min(equal_left, sum.all / kEqual);
    equal_left -= min(equal_left, sum.all / kEqual);
  }
}

}  // namespace pkv::gpu
