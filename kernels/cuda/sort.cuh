// Puts numbers of every lane in order: runs of a block's size by counting, then merged two by two, where an entry's
// place follows from how many of the other run come before it.
#pragma once

#include <cstdint>
#include <utility>

#include "kernels/cuda/gpu.h"
#include "kernels/cuda/launch.h"

namespace pkv::gpu {

constexpr int32_t kSortThreads = 256;

// A number to sort by, and where it is from, which decides between equal ones.
__device__ inline uint64_t sort_entry(uint32_t number, int32_t index) {
  return uint64_t{number} << 32 | static_cast<uint32_t>(index);
}
__device__ inline int32_t sorted_index(uint64_t entry) { return static_cast<int32_t>(entry & 0xffffffffu); }
__device__ inline uint32_t sorted_number(uint64_t entry) { return static_cast<uint32_t>(entry >> 32); }

// Blocks (x, y): entries x * kSortThreads and following of lane y. sorted [lanes][columns].
template <typename Entry>
__global__ void __launch_bounds__(kSortThreads) sort_runs_kernel(Entry entry, int32_t columns, uint64_t* sorted) {
  PKV_SHARED(uint64_t, run, kSortThreads);
  const auto thread = static_cast<int32_t>(threadIdx.x);
  const int32_t first = static_cast<int32_t>(blockIdx.x) * kSortThreads, count = min(kSortThreads, columns - first);
  const uint64_t own = thread < count ? entry(static_cast<int32_t>(blockIdx.y), first + thread) : 0;
  run[thread] = own;
  __syncthreads();
  if (thread >= count) return;
  int32_t place = 0;
  for (int32_t i = 0; i < count; ++i) place += run[i] < own ? 1 : 0;
  sorted[int64_t{blockIdx.y} * columns + first + place] = own;
}

// Likewise: runs of `run` entries, the last perhaps shorter, become runs of twice as many.
static __global__ void __launch_bounds__(kSortThreads)
    merge_runs_kernel(const uint64_t* from, int32_t columns, int32_t run, uint64_t* to) {
  const int32_t i = static_cast<int32_t>(blockIdx.x * kSortThreads + threadIdx.x);
  if (i >= columns) return;
  const uint64_t* row = from + int64_t{blockIdx.y} * columns;
  const uint64_t own = row[i];
  const int32_t index = i / run, other = min(columns, (index ^ 1) * run), end = min(columns, other + run);
  int32_t low = other, high = end;  // entries of the other run before `low` come first
  while (low < high) {
    const int32_t middle = (low + high) / 2;
    if (row[middle] < own) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  const int32_t both = index / 2 * 2 * run;
  to[int64_t{blockIdx.y} * columns + both + (i - index * run) + (low - other)] = own;
}

// Where one of two rooms [lanes][columns] holds `entry(lane, i)` of every lane in ascending order; no two of a lane are
// equal.
template <typename Entry>
const uint64_t* sort_lanes(Stream& stream, const Entry& entry, int64_t lanes, int32_t columns, uint64_t* room,
                           uint64_t* other) {
  const LaunchShape shape{.blocks = blocks_for(columns, kSortThreads), .threads = kSortThreads, .blocks_y = lanes};
  launch(stream, "sort", shape, sort_runs_kernel<Entry>, entry, columns, room);
  for (int32_t run = kSortThreads; run < columns; run *= 2) {
    launch(stream, "sort: merge", shape, merge_runs_kernel, room, columns, run, other);
    std::swap(room, other);
  }
  return room;
}

}  // namespace pkv::gpu
