// Keys and values by themselves: the lengths of keys, how alike they are, turning them to other positions, and what
// values weigh. Sums are float64: these kernels wait for memory, not for arithmetic.
#include "kernels/cuda/entry_writer.cuh"
#include "kernels/cuda/gpu.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/page_reader.cuh"
#include "kernels/cuda/rotation.cuh"

namespace pkv::gpu {
namespace {

constexpr int32_t kThreads = 256;

__device__ int32_t thread_of_grid() { return static_cast<int32_t>(blockIdx.x * kThreads + threadIdx.x); }

template <typename Numbers>
__device__ double length_of(const Numbers& numbers, int32_t count) {
  double squares = 0;
  for (int32_t i = 0; i < count; ++i) squares += static_cast<double>(numbers[i]) * numbers[i];
  return sqrt(squares);
}

// Blocks (x, y): slots x * kThreads and following of lane y, a thread a slot.
__global__ void key_norms_kernel(KvView kv, int32_t first_lane, TensorView norms) {
  const int32_t slot = thread_of_grid();
  if (slot >= norms.cols) return;
  const Lane& lane = kv.lanes[first_lane + blockIdx.y];
  const double stretch = has_codes(lane) ? sqrt(static_cast<double>(mixed_at_once(kv.head_dim))) : 1;  // by mixing
  with_entries(kv, lane, [&](const auto& entries) {
    norms.f32_row(blockIdx.y)[slot] = static_cast<float>(stretch * length_of(entries.key(slot), kv.head_dim));
  });
}

// Blocks (x, y): slots x * kThreads and following for query head y, a warp one after another of its own 32, a lane
// every 32nd column of the product. Shared: a value for each warp.
__global__ void __launch_bounds__(kThreads)
    value_norms_kernel(KvView kv, int32_t first_lane, int32_t group, TensorView factors, TensorView norms) {
  PKV_DYNAMIC_SHARED(float, values);
  const int32_t d = kv.head_dim, lane = static_cast<int32_t>(threadIdx.x) % kWarp;
  const auto head = static_cast<int32_t>(blockIdx.y);
  float* const value = values + static_cast<int32_t>(threadIdx.x) / kWarp * d;
  const int32_t begin = thread_of_grid() - lane, end = min(static_cast<int32_t>(norms.cols), begin + kWarp);
  with_entries(kv, kv.lanes[first_lane + head / group], [&](const auto& entries) {
    for (int32_t slot = begin; slot < end; ++slot) {
      read_value(entries, slot, d, value);
      double squares = 0;
      for (int32_t column = lane; column < d; column += kWarp) {
        const float* factor = factors.f32_row(int64_t{head} * d) + column;
        double product = 0;
        for (int32_t i = column; i < d; ++i) product += static_cast<double>(value[i]) * factor[i * factors.row_stride];
        squares += product * product;
      }
      squares = warp_sum(squares);
      if (lane == 0) norms.f32_row(head)[slot] = static_cast<float>(sqrt(squares));
    }
  });
}

// Block (x, y): dimension x of lane y, over all of its slots. Of mixed keys, dimension x of the mixed sum.
__global__ void __launch_bounds__(kThreads)
    unit_sums_kernel(KvView kv, int32_t first_lane, TensorView norms, TensorView unit_sums) {
  double sum = 0;
  with_entries(kv, kv.lanes[first_lane + blockIdx.y], [&](const auto& entries) {
    for (auto slot = static_cast<int32_t>(threadIdx.x); slot < norms.cols; slot += kThreads) {
      const float length = norms.f32_row(blockIdx.y)[slot];
      if (length > 0) sum += static_cast<double>(entries.key(slot)[static_cast<int32_t>(blockIdx.x)]) / length;
    }
  });
  sum = block_sum(sum);
  if (threadIdx.x == 0) unit_sums.f32_row(blockIdx.y)[blockIdx.x] = static_cast<float>(sum);
}

// A block of one warp a lane: sums of mixed keys become sums of keys.
__global__ void unmix_sums_kernel(KvView kv, int32_t first_lane, TensorView unit_sums) {
  if (!has_codes(kv.lanes[first_lane + blockIdx.x])) return;
  mix_by_warp(kv.head_dim, [sums = unit_sums.f32_row(blockIdx.x)](int32_t i) -> float& { return sums[i]; });
}

// As key_norms_kernel; `cosines` holds the keys' lengths. Shared: the sums, mixed for mixed keys.
__global__ void __launch_bounds__(kThreads)
    cosines_kernel(KvView kv, int32_t first_lane, TensorView unit_sums, TensorView cosines) {
  PKV_DYNAMIC_SHARED(double, sums);
  const Lane& lane = kv.lanes[first_lane + blockIdx.y];
  double squares = 0;
  for (auto i = static_cast<int32_t>(threadIdx.x); i < kv.head_dim; i += kThreads) {
    sums[i] = unit_sums.f32_row(blockIdx.y)[i];
    squares += sums[i] * sums[i];
  }
  const double sum_length = sqrt(block_sum(squares));
  if (has_codes(lane)) mix_by_block(1, kv.head_dim, [sums](int32_t, int32_t i) -> double& { return sums[i]; });
  const int32_t slot = thread_of_grid();
  if (slot >= cosines.cols) return;
  double product = 0;
  with_entries(kv, lane, [&](const auto& entries) {
    const auto key = entries.key(slot);
    for (int32_t i = 0; i < kv.head_dim; ++i) product += static_cast<double>(key[i]) * sums[i];
  });
  float& cosine = cosines.f32_row(blockIdx.y)[slot];
  const double lengths = cosine * sum_length;
  cosine = lengths > 0 ? static_cast<float>(product / lengths) : 0.0f;
}

// The angles of one turn by `delta` positions, for all threads of the block.
__device__ void make_angles(const RopeSpec& spec, int32_t delta, Angle* angles) {
  for (auto i = static_cast<int32_t>(threadIdx.x); i < spec.pairs; i += static_cast<int32_t>(blockDim.x)) {
    angles[i] = angle_of(spec, delta, i);
  }
  __syncthreads();
}

template <typename Key>
__device__ Pair turned_pair(const Key& key, const PairDims& dims, const Angle& by) {
  return turned({key[dims.first], key[dims.second]}, by);
}

// Blocks that share the slots [first, end) of a lane, a thread a slot.
template <typename Entries>
__device__ void turn_slots(const Entries& entries, int32_t first, int32_t end, const RopeSpec& spec,
                           const Angle* angles) {
  const auto threads = static_cast<int32_t>(gridDim.x) * kThreads;
  for (int32_t slot = first + thread_of_grid(); slot < end; slot += threads) {
    const auto key = entries.key(slot);
    for (int32_t i = 0; i < spec.pairs; ++i) {
      const PairDims dims = pair_dims(spec, i);
      const Pair pair = turned_pair(key, dims, angles[i]);
      key.set(dims.first, pair.first);
      key.set(dims.second, pair.second);
    }
  }
}

// Codes are made anew, for a key has one scale: 32 slots at a time, a warp for each. `keys` [kWarp][head_dim + 1].
template <typename Entries>
__device__ void turn_codes(const Entries& entries, int32_t first, int32_t end, const RopeSpec& spec,
                           const Angle* angles, float* keys) {
  const auto thread = static_cast<int32_t>(threadIdx.x), lane = thread % kWarp;
  const int32_t d = spec.head_dim, pitch = d + 1;
  for (int32_t tile = first + static_cast<int32_t>(blockIdx.x) * kWarp; tile < end;
       tile += static_cast<int32_t>(gridDim.x) * kWarp) {
    const int32_t slots = min(kWarp, end - tile);
    __syncthreads();  // whoever reads the tile before
    if (lane < slots) {
      const auto key = entries.key(tile + lane);
      for (int32_t i = thread / kWarp; i < d; i += kThreads / kWarp) keys[lane * pitch + i] = key[i];
    }
    __syncthreads();
    for (int32_t s = thread / kWarp; s < slots; s += kThreads / kWarp) {
      float* const key = keys + s * pitch;
      mix_by_warp(d, [key](int32_t i) -> float& { return key[i]; });
      for (int32_t i = lane; i < spec.pairs; i += kWarp) {
        const PairDims dims = pair_dims(spec, i);
        const Pair pair = turned_pair(key, dims, angles[i]);
        key[dims.first] = pair.first;
        key[dims.second] = pair.second;
      }
      __syncwarp();
      round_key(entries, tile + s, key, d);
    }
    __syncthreads();
    if (lane < slots) {
      for (int32_t i = thread / kWarp; i < d; i += kThreads / kWarp) {
        write_key(entries, tile + lane, i, keys[lane * pitch + i]);
      }
    }
  }
}

// Blocks (x, y) share the slots of lane y, whose length only the device knows. Shared: angles, then keys of 32 slots.
__global__ void __launch_bounds__(kThreads)
    turn_keys_kernel(KvView kv, int32_t first_lane, int32_t first_slot, int32_t delta, RopeSpec spec) {
  PKV_DYNAMIC_SHARED(Angle, angles);
  make_angles(spec, delta, angles);
  const Lane& lane = kv.lanes[first_lane + blockIdx.y];
  with_entries(kv, lane, [&](const auto& entries) {
    if constexpr (std::remove_cvref_t<decltype(entries)>::kCodes) {
      turn_codes(entries, first_slot, lane.length, spec, angles, reinterpret_cast<float*>(angles + spec.pairs));
    } else {
      turn_slots(entries, first_slot, lane.length, spec, angles);
    }
  });
}

// Block (x, y): row x for KV head y % kv_heads of layer y / kv_heads. Shared: angles, then the key.
__global__ void __launch_bounds__(kWarp) write_turned_kernel(TurnedRows rows, RopeSpec spec) {
  PKV_DYNAMIC_SHARED(Angle, angles);
  make_angles(spec, rows.delta, angles);
  auto* const key = reinterpret_cast<float*>(angles + spec.pairs);
  const auto slot = static_cast<int32_t>(blockIdx.x), thread = static_cast<int32_t>(threadIdx.x);
  const int32_t head = static_cast<int32_t>(blockIdx.y) % rows.kv_heads;
  const int32_t layer = static_cast<int32_t>(blockIdx.y) / rows.kv_heads;
  const int32_t d = rows.kv.head_dim;
  const int64_t row = int64_t{layer} * rows.rows + slot, column = int64_t{head} * d;
  const float* from = rows.keys.f32_row(row) + column;
  const float* value_from = rows.values.f32_row(row) + column;
  for (int32_t i = thread; i < spec.pairs; i += kWarp) {
    const PairDims dims = pair_dims(spec, i);
    const Pair pair = turned_pair(from, dims, angles[i]);
    key[dims.first] = pair.first;
    key[dims.second] = pair.second;
  }
  for (int32_t i = 2 * spec.pairs + thread; i < d; i += kWarp) key[i] = from[i];
  __syncwarp();
  with_entries(rows.kv, rows.kv.lanes[layer * rows.lanes_per_layer + rows.first_lane + head], [&](const auto& entries) {
    round_key(entries, slot, key, d);
    for (int32_t i = thread; i < d; i += kWarp) write_key(entries, slot, i, key[i]);
    write_value(entries, slot, value_from, d);
    if (thread == 0) entries.position(slot).stored(0) = slot;
  });
}

// Angles, and room for keys.
size_t turning_bytes(const RopeSpec& spec, int32_t keys) {
  return sizeof(Angle) * static_cast<size_t>(spec.pairs) +
         sizeof(float) * static_cast<size_t>(keys * (spec.head_dim + 1));
}

LaunchShape thread_a_slot(const TensorView& scores) {
  return {.blocks = blocks_for(scores.cols, kThreads), .threads = kThreads, .blocks_y = scores.rows};
}

}  // namespace

void key_norms(Stream& stream, const KvView& kv, int32_t first_lane, const TensorView& norms) {
  launch(stream, "key_norms", thread_a_slot(norms), key_norms_kernel, kv, first_lane, norms);
}

void value_norms(Stream& stream, const KvView& kv, int32_t first_lane, int32_t kv_heads, const TensorView& factors,
                 const TensorView& norms) {
  const auto group = static_cast<int32_t>(norms.rows / kv_heads);
  LaunchShape shape = thread_a_slot(norms);
  shape.shared_bytes = sizeof(float) * static_cast<size_t>(kThreads / kWarp * kv.head_dim);
  launch(stream, "value_norms", shape, value_norms_kernel, kv, first_lane, group, factors, norms);
}

void key_similarity(Stream& stream, const KvView& kv, int32_t first_lane, const TensorView& unit_sums,
                    const TensorView& cosines) {
  key_norms(stream, kv, first_lane, cosines);
  launch(stream, "key_similarity sums", {.blocks = unit_sums.cols, .threads = kThreads, .blocks_y = unit_sums.rows},
         unit_sums_kernel, kv, first_lane, cosines, unit_sums);
  launch(stream, "key_similarity unmixed", {.blocks = unit_sums.rows, .threads = kWarp}, unmix_sums_kernel, kv,
         first_lane, unit_sums);
  LaunchShape shape = thread_a_slot(cosines);
  shape.shared_bytes = sizeof(double) * static_cast<size_t>(kv.head_dim);
  launch(stream, "key_similarity", shape, cosines_kernel, kv, first_lane, unit_sums, cosines);
}

void turn_keys(Stream& stream, const KvView& kv, int32_t first_lane, int32_t lanes, int32_t first_slot, int32_t delta,
               const RopeSpec& spec) {
  constexpr int64_t kBlocksPerLane = 32;
  launch(stream, "turn_keys",
         {.blocks = kBlocksPerLane, .threads = kThreads, .blocks_y = lanes, .shared_bytes = turning_bytes(spec, kWarp)},
         turn_keys_kernel, kv, first_lane, first_slot, delta, turning(spec));
}

void write_turned(Stream& stream, const TurnedRows& rows, const RopeSpec& spec) {
  launch(stream, "write_turned",
         {.blocks = rows.rows,
          .threads = kWarp,
          .blocks_y = int64_t{rows.layers} * rows.kv_heads,
          .shared_bytes = turning_bytes(spec, 1)},
         write_turned_kernel, rows, turning(spec));
}

}  // namespace pkv::gpu
