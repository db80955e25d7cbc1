// Attention of single rows over long lanes: the lanes of all rows are cut into chunks, which the blocks of a fixed grid
// share, and each unit's chunks are merged in their order. How a lane is cut follows from its own length alone: what a
// row comes to does not depend on who else is in the step, and lanes of any lengths and policies are one launch.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "kernels/cuda/attend_walk.cuh"
#include "kernels/cuda/gpu.h"
#include "kernels/cuda/launch.h"

namespace pkv::gpu {

// At most kMostChunks chunks of equal length, none below kLeastChunk slots: partial results of any step fit memory that
// the host can reserve without a lane's length.
constexpr int32_t kMostChunks = 64, kLeastChunk = 256;

struct Chunks {
  int32_t slots = kLeastChunk;
  int32_t count = 0;
};
__device__ inline Chunks chunks_of(int32_t visible) {
  Chunks chunks;
  while (chunks.slots * kMostChunks < visible) chunks.slots *= 2;
  chunks.count = (visible + chunks.slots - 1) / chunks.slots;
  return chunks;
}

// What units left of their chunks, chunk c of unit u at u * kMostChunks + c.
template <int32_t kHeads>
struct Partials {
  float* values = nullptr;  // [units * kMostChunks][kHeads][head_dim]
  Attended<kHeads>* attended = nullptr;

  static constexpr size_t bytes(int64_t units, int32_t head_dim) {
    return static_cast<size_t>(units * kMostChunks) * (kHeads * sizeof(float) * head_dim + sizeof(Attended<kHeads>));
  }
  __device__ float* values_of(int64_t unit, int32_t chunk, int32_t head_dim) const {
    return values + (unit * kMostChunks + chunk) * kHeads * head_dim;
  }
  __device__ Attended<kHeads>& attended_of(int64_t unit, int32_t chunk) const {
    return attended[unit * kMostChunks + chunk];
  }
};

// Unit u of a step: parts of query heads one after another, row after row.
template <int32_t kHeads>
__device__ AttendUnit unit_of(const AttendArgs& args, int32_t u) {
  const int32_t of_row = args.kv_heads * query_parts(args.q_heads / args.kv_heads, kHeads);
  return attend_unit<kHeads>(args, u / of_row, u % of_row);
}

// ends[u] = chunks of the units up to and with u, by all threads of the block, each its own run of units.
template <int32_t kHeads, int32_t kThreads>
__device__ void count_chunks(const AttendArgs& args, int32_t units, int32_t* ends) {
  PKV_SHARED(int32_t, totals, kThreads);
  const auto thread = static_cast<int32_t>(threadIdx.x);
  const int32_t each = (units + kThreads - 1) / kThreads;
  const int32_t begin = min(units, thread * each), end = min(units, begin + each);
  int32_t total = 0;
  for (int32_t u = begin; u < end; ++u) {
    total += chunks_of(unit_of<kHeads>(args, u).visible).count;
    ends[u] = total;
  }
  totals[thread] = total;
  __syncthreads();
  int32_t before = 0;
  for (int32_t t = 0; t < thread; ++t) before += totals[t];
  for (int32_t u = begin; u < end; ++u) ends[u] += before;
  __syncthreads();
}

// The unit that has this chunk of all.
__device__ inline int32_t unit_with(const int32_t* ends, int32_t units, int32_t chunk) {
  int32_t low = 0, high = units - 1;
  while (low < high) {
    const int32_t middle = (low + high) / 2;
    if (chunk < ends[middle]) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return low;
}

// `Worker` attends some slots. Shared memory: what the worker needs, then the ends of the units' chunks.
template <typename Worker>
__global__ void __launch_bounds__(Worker::kThreads)
    attend_chunks_kernel(AttendArgs args, int32_t units, size_t worker_bytes, Partials<Worker::kHeadsOfUnit> partials) {
  constexpr int32_t kHeads = Worker::kHeadsOfUnit;
  PKV_DYNAMIC_SHARED(std::byte, shared);
  auto* const values = reinterpret_cast<float*>(shared);
  auto* const ends = reinterpret_cast<int32_t*>(shared + worker_bytes);
  const int32_t d = args.kv.head_dim;
  count_chunks<kHeads, Worker::kThreads>(args, units, ends);
  for (auto item = static_cast<int32_t>(blockIdx.x); item < ends[units - 1]; item += static_cast<int32_t>(gridDim.x)) {
    const int32_t u = unit_with(ends, units, item);
    const AttendUnit unit = unit_of<kHeads>(args, u);
    const Chunks chunks = chunks_of(unit.visible);
    const int32_t chunk = item - (ends[u] - chunks.count), begin = chunk * chunks.slots;
    const Attended<kHeads> attended =
        Worker::attend(args, unit, begin, min(unit.visible, begin + chunks.slots), values);
    if (chunks.count == 1) {
      write_attended<kHeads>(args, unit.row, unit.heads, attended, values);
      continue;
    }
    float* to = partials.values_of(u, chunk, d);
    for (auto i = static_cast<int32_t>(threadIdx.x); i < kHeads * d; i += Worker::kThreads) to[i] = values[i];
    if (threadIdx.x == 0) partials.attended_of(u, chunk) = attended;
  }
}

// A block a unit.
template <int32_t kHeads>
__global__ void merge_chunks_kernel(AttendArgs args, Partials<kHeads> partials) {
  PKV_DYNAMIC_SHARED(float, values);  // [kHeads][head_dim]
  const AttendUnit unit = unit_of<kHeads>(args, static_cast<int32_t>(blockIdx.x));
  if (unit.lane == nullptr) return;
  const Chunks chunks = chunks_of(unit.visible);
  if (chunks.count == 0) return write_nothing(args, unit.row, unit.heads);
  if (chunks.count == 1) return;
  const int32_t d = args.kv.head_dim;
  Attended<kHeads> merged;
  for (int32_t h = 0; h < kHeads; ++h) {
    merged.largest[h] = -INFINITY;
    merged.sum[h] = 0;
    for (int32_t c = 0; c < chunks.count; ++c) {
      merged.largest[h] = fmaxf(merged.largest[h], partials.attended_of(blockIdx.x, c).largest[h]);
    }
    for (auto i = static_cast<int32_t>(threadIdx.x); i < d; i += static_cast<int32_t>(blockDim.x)) {
      values[h * d + i] = 0;
    }
    for (int32_t c = 0; c < chunks.count; ++c) {
      const Attended<kHeads>& part = partials.attended_of(blockIdx.x, c);
      const float weight = expf(part.largest[h] - merged.largest[h]);
      merged.sum[h] += part.sum[h] * weight;
      const float* from = partials.values_of(blockIdx.x, c, d) + h * d;
      for (auto i = static_cast<int32_t>(threadIdx.x); i < d; i += static_cast<int32_t>(blockDim.x)) {
        values[h * d + i] += from[i] * weight;
      }
    }
  }
  write_attended<kHeads>(args, unit.row, unit.heads, merged, values);  // a thread reads what it wrote itself
}

// Single rows of many lanes, as many at a time as partial results have room. `worker_bytes` of shared memory for
// Worker.
template <typename Worker>
void attend_split(Stream& stream, const AttendArgs& args, size_t worker_bytes) {
  constexpr int32_t kHeads = Worker::kHeadsOfUnit;
  constexpr int64_t kBlocksOfMultiprocessor = 4;
  constexpr int32_t kMergeThreads = 128;
  constexpr int64_t kMostBytes = 128 << 20;
  const int32_t d = args.kv.head_dim;
  const int64_t units_of_row = int64_t{args.kv_heads} * query_parts(args.q_heads / args.kv_heads, kHeads);
  const int64_t row_bytes = units_of_row * static_cast<int64_t>(Partials<kHeads>::bytes(1, d));
  const int64_t at_once = std::max<int64_t>(1, kMostBytes / row_bytes);
  const size_t worker = (worker_bytes + 15) / 16 * 16;
  for (int64_t first = 0; first < args.q.rows; first += at_once) {
    const int64_t rows = std::min(at_once, args.q.rows - first), units = rows * units_of_row;
    AttendArgs part = args;
    part.q = args.q.slice_rows(first, rows);
    part.out = args.out.slice_rows(first, rows);
    if (args.lse.data != nullptr) part.lse = args.lse.slice_rows(first, rows);
    part.skipped_rows += static_cast<int32_t>(first);
    const Scratch scratch(stream, Partials<kHeads>::bytes(units, d));
    Partials<kHeads> partials{.values = scratch.template as<float>()};
    partials.attended = reinterpret_cast<Attended<kHeads>*>(partials.values + units * kMostChunks * kHeads * d);
    launch(stream, "attend",
           {.blocks = std::min(units * kMostChunks, kBlocksOfMultiprocessor * stream.limits().multiprocessors),
            .threads = Worker::kThreads,
            .shared_bytes = worker + sizeof(int32_t) * static_cast<size_t>(units)},
           attend_chunks_kernel<Worker>, part, static_cast<int32_t>(units), worker, partials);
    launch(stream, "attend: merge",
           {.blocks = units, .threads = kMergeThreads, .shared_bytes = sizeof(float) * static_cast<size_t>(kHeads * d)},
           merge_chunks_kernel<kHeads>, part, partials);
  }
}

}  // namespace pkv::gpu
