// Observation passes on tensor cores: products are S = K Q^T, sixteen slots a warp by eight rows of one query head.
// Entries are f16 as they are and queries are split into two halves of 16 bits, so scores are as good as float32 ones.
// A block has some slots of a lane and walks the rows in order: what it adds up is nobody else's.
#include "kernels/cuda/gpu.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/log_sum.cuh"
#include "kernels/cuda/matrix.cuh"
#include "kernels/cuda/observe_halves.h"
#include "kernels/cuda/page_reader.cuh"

namespace pkv::gpu {
namespace {

constexpr int32_t kThreads = 256;
constexpr int32_t kWarps = kThreads / kWarp;
constexpr int32_t kSlots = kWarps * 16;  // of a tile
constexpr int32_t kRun = 8;              // slots that lie together in a page: 16 bytes of a dimension of keys
constexpr int32_t kRuns = kSlots / kRun;
constexpr int32_t kRows = 32;          // of a query head at a time
constexpr int32_t kBlocksOfLane = 32;  // of row_lse

// Of 16 bytes each.
using Unit = uint4;

// Shared memory: keys of a tile [head_dim][kRuns], the runs of a dimension permuted by its last three bits; queries of
// some rows [kRows][head_dim + 8], their halves and what rounding left. Eight rows of a matrix then lie in different
// banks.
template <int32_t kSteps>
struct Room {
  static constexpr int32_t kDims = kSteps * 16, kPitch = kDims + 8;
  static constexpr size_t kKeyBytes = sizeof(Unit) * kDims * kRuns, kQueryBytes = sizeof(uint16_t) * kRows * kPitch;
  static constexpr size_t kBytes = kKeyBytes + 2 * kQueryBytes;

  Unit* keys;
  uint16_t *high, *low;

  __device__ explicit Room(std::byte* shared)
      : keys(reinterpret_cast<Unit*>(shared)),
        high(reinterpret_cast<uint16_t*>(shared + kKeyBytes)),
        low(high + kRows * kPitch) {}
  __device__ static int32_t key(int32_t dim, int32_t run) { return kRuns * dim + (run ^ (dim & 7)); }
};

// The keys of a warp's sixteen slots as A fragments.
template <int32_t kSteps>
struct Keys {
  uint32_t fragments[kSteps][4];
};

// Of the slots [first, first + kSlots), zeros from `end` on. All threads of the block.
template <int32_t kSteps>
__device__ void load_keys(const LaneEntries<KvDtype::kF16>& entries, int32_t first, int32_t end,
                          const Room<kSteps>& room, Keys<kSteps>& keys) {
  const auto thread = static_cast<int32_t>(threadIdx.x), lane = thread % kWarp;
  const int32_t run = thread % kRuns, slot = first + run * kRun, matrix = lane / 8, row = lane % 8;
  const auto from = entries.stored_key(slot < end ? slot : first);
  __syncthreads();  // whoever reads the tile before
  for (int32_t dim = thread / kRuns; dim < kSteps * 16; dim += kThreads / kRuns) {
    copy_16(room.keys + room.key(dim, run), &from.stored(dim), slot < end);
  }
  end_copy_group();
  wait_for_copies<0>();
  __syncthreads();
  for (int32_t step = 0; step < kSteps; ++step) {
    load_transposed(keys.fragments[step],
                    room.keys + room.key(step * 16 + matrix / 2 * 8 + row, thread / kWarp * 2 + matrix % 2));
  }
}

// The queries of rows [first, first + kRows) of a head, zeros beyond the last. All threads of the block.
template <int32_t kSteps>
__device__ void load_queries(const TensorView& q, int32_t first, int32_t head, const Room<kSteps>& room) {
  constexpr int32_t kDims = kSteps * 16;
  __syncthreads();  // whoever reads the rows before
  for (auto i = static_cast<int32_t>(threadIdx.x); i < kRows * kDims; i += kThreads) {
    const int32_t row = i / kDims, dim = i % kDims;
    const float query = first + row < q.rows ? q.f32_row(first + row)[head * kDims + dim] : 0.0f;
    const uint16_t high = float_to_half(query);
    room.high[row * room.kPitch + dim] = high;
    room.low[row * room.kPitch + dim] = float_to_half(query - half_to_float(high));
  }
  __syncthreads();
}

// Products of a warp's keys with the rows [column * 8, column * 8 + 8) of those loaded, a C fragment.
template <int32_t kSteps>
__device__ void multiply(const Keys<kSteps>& keys, const Room<kSteps>& room, int32_t column, float (&c)[4]) {
  const auto lane = static_cast<int32_t>(threadIdx.x) % kWarp;
  for (float& score : c) score = 0;
  for (int32_t step = 0; step < kSteps; step += 2) {
    // Eight rows at four times eight dimensions; the last two times again what there is where dimensions end before.
    const int32_t dim = min(step * 16 + lane / 8 * 8, kSteps * 16 - 8);
    const int32_t at = (column * 8 + lane % 8) * room.kPitch + dim;
    uint32_t high[4], low[4];
    load_matrices(high, room.high + at);
    load_matrices(low, room.low + at);
    for (int32_t half = 0; half < 2 && step + half < kSteps; ++half) {
      mma_f16(c, keys.fragments[step + half], low[2 * half], low[2 * half + 1]);
      mma_f16(c, keys.fragments[step + half], high[2 * half], high[2 * half + 1]);
    }
  }
}

// A lane's observation by a block: rows and slots of the elements of a C fragment.
struct Place {
  int32_t first_slot = 0, first_row = 0;

  __device__ int32_t slot(int32_t i) const {
    const auto thread = static_cast<int32_t>(threadIdx.x);
    return first_slot + thread / kWarp * 16 + thread % kWarp / 4 + i / 2 * 8;
  }
  __device__ int32_t row(int32_t column, int32_t i) const {
    return first_row + column * 8 + static_cast<int32_t>(threadIdx.x) % 4 * 2 + i % 2;
  }
};

// Calls visit(column, place, scores) for all rows of a head that see something of a tile of keys, eight at a time, and
// done(first row) after each kRows.
template <int32_t kSteps, typename Visit, typename Done>
__device__ void walk_rows(const ObserveArgs& args, int32_t length, int32_t first_slot, int32_t head,
                          const Keys<kSteps>& keys, const Room<kSteps>& room, const Visit& visit, const Done& done) {
  const auto rows = static_cast<int32_t>(args.q.rows);
  for (int32_t first = 0; first < rows; first += kRows) {
    const int32_t end = min(rows, first + kRows);
    if (args.visible(length, end - 1) <= first_slot) continue;  // the last row sees most
    load_queries(args.q, first, head, room);
    for (int32_t column = 0; column * 8 < end - first; ++column) {
      float scores[4];
      multiply(keys, room, column, scores);
      visit(column, Place{first_slot, first}, scores);
    }
    done(first);
  }
}

// ---- column_mass

// Block (x, y): slots [x * kSlots, ...) of KV head y.
template <int32_t kSteps>
__global__ void __launch_bounds__(kThreads)
    column_mass_halves_kernel(ObserveArgs args, TensorView lse, TensorView sums, TensorView squares) {
  PKV_DYNAMIC_SHARED(std::byte, shared);
  const auto kv_head = static_cast<int32_t>(blockIdx.y), first_slot = static_cast<int32_t>(blockIdx.x) * kSlots;
  const Lane& lane = args.kv.lanes[args.first_lane + kv_head];
  const int32_t group = args.q_heads / args.kv_heads, rows = static_cast<int32_t>(args.q.rows);
  const int32_t end = args.visible(lane.length, rows - 1);
  if (lane.dtype != KvDtype::kF16 || end <= first_slot) return;
  const Room<kSteps> room(shared);
  Keys<kSteps> keys;
  load_keys(LaneEntries<KvDtype::kF16>(args.kv, lane), first_slot, end, room, keys);
  for (int32_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
    double mass[2] = {}, mass_squares[2] = {};  // of two slots, over the thread's own rows
    const auto add = [&](int32_t column, const Place& place, const float(&scores)[4]) {
      for (int32_t i = 0; i < 4; ++i) {
        const int32_t row = place.row(column, i);
        if (row >= rows || place.slot(i) >= args.visible(lane.length, row)) continue;
        const double weight = expf(scores[i] * args.scale - lse.f32_row(row)[head]);
        mass[i / 2] += weight;
        mass_squares[i / 2] += weight * weight;
      }
    };
    walk_rows(args, lane.length, first_slot, head, keys, room, add, [](int32_t) {});
    for (int32_t i = 0; i < 2; ++i) {
      for (int32_t distance = 1; distance < 4; distance *= 2) {
        mass[i] += __shfl_xor_sync(kAllLanes, mass[i], distance);
        mass_squares[i] += __shfl_xor_sync(kAllLanes, mass_squares[i], distance);
      }
      const int32_t slot = Place{first_slot, 0}.slot(2 * i);
      if (threadIdx.x % 4 != 0 || slot >= sums.cols) continue;
      float& sum = sums.f32_row(head)[slot];
      sum = static_cast<float>(sum + mass[i]);
      if (squares.data == nullptr) continue;
      float& square = squares.f32_row(head)[slot];
      square = static_cast<float>(square + mass_squares[i]);
    }
  }
}

// ---- row_lse

using Parts = LogSumParts<kBlocksOfLane>;

// What two slots of a column have, and with them the others of the warp: every lane the same of its column.
__device__ LogSum part_of_column(float first, float second) {
  float largest = fmaxf(first, second);
  for (int32_t distance = 4; distance < kWarp; distance *= 2) {
    largest = fmaxf(largest, __shfl_xor_sync(kAllLanes, largest, distance));
  }
  const float base = largest == -INFINITY ? 0.0f : largest;
  float sum = expf(first - base) + expf(second - base);
  for (int32_t distance = 4; distance < kWarp; distance *= 2) sum += __shfl_xor_sync(kAllLanes, sum, distance);
  return {largest, sum};
}

// Block (x, y): tiles x, x + kBlocksOfLane, ... of the slots of KV head y.
template <int32_t kSteps>
__global__ void __launch_bounds__(kThreads) row_lse_halves_kernel(ObserveArgs args, Parts parts) {
  PKV_DYNAMIC_SHARED(std::byte, shared);
  PKV_SHARED(LogSum, of_warps, kWarps * kRows);
  const auto kv_head = static_cast<int32_t>(blockIdx.y), block = static_cast<int32_t>(blockIdx.x);
  const auto thread = static_cast<int32_t>(threadIdx.x), rows = static_cast<int32_t>(args.q.rows);
  const Lane& lane = args.kv.lanes[args.first_lane + kv_head];
  if (lane.dtype != KvDtype::kF16) return;
  const int32_t group = args.q_heads / args.kv_heads, end = args.visible(lane.length, rows - 1);
  for (int32_t i = thread; i < rows * group; i += kThreads)
    parts.at(i / group, kv_head * group + i % group, block) = {};
  const Room<kSteps> room(shared);
  const LaneEntries<KvDtype::kF16> entries(args.kv, lane);
  for (int32_t first_slot = block * kSlots; first_slot < end; first_slot += kBlocksOfLane * kSlots) {
    Keys<kSteps> keys;
    load_keys(entries, first_slot, end, room, keys);  // all meet
    for (int32_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
      const auto add = [&](int32_t column, const Place& place, const float(&scores)[4]) {
        for (int32_t i = 0; i < 2; ++i) {
          const int32_t row = place.row(column, i), visible = row < rows ? args.visible(lane.length, row) : 0;
          const LogSum part = part_of_column(place.slot(i) < visible ? scores[i] * args.scale : -INFINITY,
                                             place.slot(i + 2) < visible ? scores[i + 2] * args.scale : -INFINITY);
          if (thread % kWarp < 4) of_warps[thread / kWarp * kRows + row - place.first_row] = part;
        }
      };
      const auto add_warps = [&](int32_t first) {
        __syncthreads();
        if (thread < min(kRows, rows - first)) {
          LogSum& sum = parts.at(first + thread, head, block);
          for (int32_t warp = 0; warp < kWarps; ++warp) sum.add(of_warps[warp * kRows + thread]);
        }
      };
      walk_rows(args, lane.length, first_slot, head, keys, room, add, add_warps);
    }
  }
}

// Blocks (x, y): query heads x * kThreads and following of row y.
__global__ void add_parts_kernel(ObserveArgs args, Parts parts, TensorView lse) {
  const auto head = static_cast<int32_t>(blockIdx.x * kThreads + threadIdx.x), row = static_cast<int32_t>(blockIdx.y);
  if (head >= args.q_heads) return;
  const int32_t group = args.q_heads / args.kv_heads;
  if (args.kv.lanes[args.first_lane + head / group].dtype != KvDtype::kF16) return;
  lse.f32_row(row)[head] = parts.all(row, head).value();
}

// ---- what there is of it

// visit(std::integral_constant<int32_t, head size / 16>()); false where nothing takes the lanes.
template <typename Visit>
bool with_steps(const KvView& kv, const Visit& visit) {
  const bool whole_runs = PageLayout(KvDtype::kF16, kv.head_dim, kv.page_bytes).slots() % kRun == 0 &&
                          kv.page_bytes % static_cast<int32_t>(sizeof(Unit)) == 0;
  if (!whole_runs) return false;
  switch (kv.head_dim) {
    case 64:
      visit(std::integral_constant<int32_t, 4>());
      return true;
    case 80:
      visit(std::integral_constant<int32_t, 5>());
      return true;
    case 96:
      visit(std::integral_constant<int32_t, 6>());
      return true;
    case 128:
      visit(std::integral_constant<int32_t, 8>());
      return true;
    default:
      return false;
  }
}

}  // namespace

bool row_lse_of_halves(Stream& stream, const ObserveArgs& args, const TensorView& lse) {
  return with_steps(args.kv, [&](auto steps) {
    constexpr int32_t kSteps = decltype(steps)::value;
    const Scratch scratch(stream, sizeof(LogSum) * static_cast<size_t>(args.q.rows * args.q_heads * kBlocksOfLane));
    const Parts parts{scratch.as<LogSum>(), args.q_heads};
    launch(stream, "row_lse",
           {.blocks = args.q.rows == 0 ? 0 : kBlocksOfLane,
            .threads = kThreads,
            .blocks_y = args.kv_heads,
            .shared_bytes = Room<kSteps>::kBytes},
           row_lse_halves_kernel<kSteps>, args, parts);
    launch(stream, "row_lse: sums",
           {.blocks = blocks_for(args.q_heads, kThreads), .threads = kThreads, .blocks_y = args.q.rows},
           add_parts_kernel, args, parts, lse);
  });
}

bool column_mass_of_halves(Stream& stream, const ObserveArgs& args, const TensorView& lse, const TensorView& sums,
                           const TensorView& squares) {
  return with_steps(args.kv, [&](auto steps) {
    constexpr int32_t kSteps = decltype(steps)::value;
    launch(stream, "column_mass",
           {.blocks = blocks_for(sums.cols, kSlots),
            .threads = kThreads,
            .blocks_y = args.kv_heads,
            .shared_bytes = Room<kSteps>::kBytes},
           column_mass_halves_kernel<kSteps>, args, lse, sums, squares);
  });
}

}  // namespace pkv::gpu
