// Keys and values by themselves: the lengths of keys, how alike they are, turning them to other positions, and what
// values weigh. Sums are float64: these kernels wait for memory, not for arithmetic.
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
  with_entries(kv, kv.lanes[first_lane + blockIdx.y], [&](const auto& entries) {
    norms.f32_row(blockIdx.y)[slot] = static_cast<float>(length_of(entries.key(slot), kv.head_dim));
  });
}

// Blocks (x, y): slots x * kThreads and following for query head y, a thread a slot.
__global__ void value_norms_kernel(KvView kv, int32_t first_lane, int32_t group, TensorView factors, TensorView norms) {
  const int32_t slot = thread_of_grid();
  if (slot >= norms.cols) return;
  const auto head = static_cast<int32_t>(blockIdx.y);
  with_entries(kv, kv.lanes[first_lane + head / group], [&](const auto& entries) {
    const auto value = entries.value(slot);
    double squares = 0;
    for (int32_t column = 0; column < kv.head_dim; ++column) {
      double product = 0;
      for (int32_t i = column; i < kv.head_dim; ++i) {
        product += static_cast<double>(value[i]) * factors.f32_row(int64_t{head} * kv.head_dim + i)[column];
      }
      squares += product * product;
    }
    norms.f32_row(head)[slot] = static_cast<float>(sqrt(squares));
  });
}

// Block (x, y): dimension x of lane y, over all of its slots.
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

// As key_norms_kernel; `cosines` holds the keys' lengths.
__global__ void __launch_bounds__(kThreads)
    cosines_kernel(KvView kv, int32_t first_lane, TensorView unit_sums, TensorView cosines) {
  const float* sums = unit_sums.f32_row(blockIdx.y);
  double squares = 0;
  for (auto i = static_cast<int32_t>(threadIdx.x); i < kv.head_dim; i += kThreads) {
    squares += static_cast<double>(sums[i]) * sums[i];
  }
  const double sum_length = sqrt(block_sum(squares));
  const int32_t slot = thread_of_grid();
  if (slot >= cosines.cols) return;
  double product = 0;
  with_entries(kv, kv.lanes[first_lane + blockIdx.y], [&](const auto& entries) {
    const auto key = entries.key(slot);
    for (int32_t i = 0; i < kv.head_dim; ++i) product += static_cast<double>(key[i]) * sums[i];
  });
  float& cosine = cosines.f32_row(blockIdx.y)[slot];
  const double lengths = cosine * sum_length;
  cosine = lengths > 0 ? static_cast<float>(product / lengths) : 0.0f;
}

// The angles of one turn by `delta` positions, for all threads of the block.
__device__ void make_angles(const RopeSpec& spec, int32_t delta, Angle* angles) {
  for (auto i = static_cast<int32_t>(threadIdx.x); i < spec.pairs; i += kThreads) angles[i] = angle_of(spec, delta, i);
  __syncthreads();
}

// Blocks (x, y) share the slots of lane y, whose length only the device knows, a thread a slot.
__global__ void __launch_bounds__(kThreads)
    turn_keys_kernel(KvView kv, int32_t first_lane, int32_t first_slot, int32_t delta, RopeSpec spec) {
  PKV_DYNAMIC_SHARED(Angle, angles);
  make_angles(spec, delta, angles);
  const Lane& lane = kv.lanes[first_lane + blockIdx.y];
  with_entries(kv, lane, [&](const auto& entries) {
    const auto threads = static_cast<int32_t>(gridDim.x) * kThreads;
    for (int32_t slot = first_slot + thread_of_grid(); slot < lane.length; slot += threads) {
      const auto key = entries.key(slot);
      for (int32_t i = 0; i < spec.pairs; ++i) {
        const PairDims dims = pair_dims(spec, i);
        const Pair pair = turned({key[dims.first], key[dims.second]}, angles[i]);
        key.set(dims.first, pair.first);
        key.set(dims.second, pair.second);
      }
    }
  });
}

// Block (x, y): row x for KV head y % kv_heads of layer y / kv_heads.
__global__ void __launch_bounds__(kThreads) write_turned_kernel(TurnedRows rows, RopeSpec spec) {
  PKV_DYNAMIC_SHARED(Angle, angles);
  make_angles(spec, rows.delta, angles);
  const auto slot = static_cast<int32_t>(blockIdx.x), thread = static_cast<int32_t>(threadIdx.x);
  const int32_t head = static_cast<int32_t>(blockIdx.y) % rows.kv_heads;
  const int32_t layer = static_cast<int32_t>(blockIdx.y) / rows.kv_heads;
  const int32_t d = rows.kv.head_dim;
  const int64_t row = int64_t{layer} * rows.rows + slot, column = int64_t{head} * d;
  const float* from = rows.keys.f32_row(row) + column;
  const float* value_from = rows.values.f32_row(row) + column;
  with_entries(rows.kv, rows.kv.lanes[layer * rows.lanes_per_layer + rows.first_lane + head], [&](const auto& entries) {
    const auto key = entries.key(slot);
    for (int32_t i = thread; i < spec.pairs; i += kThreads) {
      const PairDims dims = pair_dims(spec, i);
      const Pair pair = turned({from[dims.first], from[dims.second]}, angles[i]);
      key.set(dims.first, pair.first);
      key.set(dims.second, pair.second);
    }
    for (int32_t i = 2 * spec.pairs + thread; i < d; i += kThreads) key.set(i, from[i]);
    const auto value = entries.value(slot);
    for (int32_t i = thread; i < d; i += kThreads) value.set(i, value_from[i]);
    if (thread == 0) entries.position(slot).stored(0) = slot;
  });
}

size_t angle_bytes(const RopeSpec& spec) { return sizeof(Angle) * static_cast<size_t>(spec.pairs); }

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
  launch(stream, "value_norms", thread_a_slot(norms), value_norms_kernel, kv, first_lane, group, factors, norms);
}

void key_similarity(Stream& stream, const KvView& kv, int32_t first_lane, const TensorView& unit_sums,
                    const TensorView& cosines) {
  key_norms(stream, kv, first_lane, cosines);
  launch(stream, "key_similarity sums", {.blocks = unit_sums.cols, .threads = kThreads, .blocks_y = unit_sums.rows},
         unit_sums_kernel, kv, first_lane, cosines, unit_sums);
  launch(stream, "key_similarity", thread_a_slot(cosines), cosines_kernel, kv, first_lane, unit_sums, cosines);
}

void turn_keys(Stream& stream, const KvView& kv, int32_t first_lane, int32_t lanes, int32_t first_slot, int32_t delta,
               const RopeSpec& spec) {
  constexpr int64_t kBlocksPerLane = 32;
  launch(stream, "turn_keys",
         {.blocks = kBlocksPerLane, .threads = kThreads, .blocks_y = lanes, .shared_bytes = angle_bytes(spec)},
         turn_keys_kernel, kv, first_lane, first_slot, delta, turning(spec));
}

void write_turned(Stream& stream, const TurnedRows& rows, const RopeSpec& spec) {
  launch(stream, "write_turned",
         {.blocks = rows.rows,
          .threads = kThreads,
          .blocks_y = int64_t{rows.layers} * rows.kv_heads,
          .shared_bytes = angle_bytes(spec)},
         write_turned_kernel, rows, turning(spec));
}

}  // namespace pkv::gpu
