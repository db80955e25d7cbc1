// Attention of single rows on tensor cores, for f16 entries: eight query heads of a KV head are the columns of every
// product, S^T = K Q^T and O^T = V^T P^T, so that a page is read once and in the order it lies in. Queries are split
// into two halves of 16 bits, which makes scores as good as float32 ones; weights are rounded to 16 bits. Waits for
// memory: each warp has the next tile on its way while it works on one.
#include <algorithm>

#include "kernels/cuda/attend_prompt.h"
#include "kernels/cuda/attend_split.cuh"
#include "kernels/cuda/gpu.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/matrix.cuh"

namespace pkv::gpu {
namespace {

constexpr int32_t kHeads = 8;   // columns of a product
constexpr int32_t kTile = 16;   // slots of one
constexpr int32_t kRun = 8;     // slots that lie together in a page: 16 bytes of a dimension of keys
constexpr int32_t kStages = 2;  // tiles that a warp has room for
constexpr int32_t kThreads = 128;
constexpr int32_t kWarps = kThreads / kWarp;

// A tile in shared memory, in units of 16 bytes: keys [head_dim][2], the two runs of a dimension swapped for every
// other four dimensions; values [kTile][head_dim / 8 + 1]. Eight rows of a matrix then lie in different banks.
template <int32_t kSteps>
struct Tile {
  static constexpr int32_t kDims = kSteps * 16, kPitch = kDims / 8 + 1;
  static constexpr int32_t kKeyUnits = kDims * 2, kUnits = kKeyUnits + kTile * kPitch;

  __device__ static int32_t key(int32_t dim, int32_t run) { return 2 * dim + (run ^ (dim >> 2 & 1)); }
  __device__ static int32_t value(int32_t slot, int32_t unit) { return kKeyUnits + slot * kPitch + unit; }
};

// Of 16 bytes each.
using Unit = uint4;

// Slots [first, first + kTile) of a lane, those from `end` on as zeros. All lanes of a warp.
template <int32_t kSteps>
__device__ void start_tile(const LaneEntries<KvDtype::kF16>& entries, int32_t first, int32_t end, Unit* tile) {
  using At = Tile<kSteps>;
  const auto lane = static_cast<int32_t>(threadIdx.x) % kWarp;
  constexpr int32_t kRuns = kTile / kRun;
  const int32_t run = lane % kRuns, slot = first + run * kRun;
  const auto keys = entries.key(slot < end ? slot : first);
  for (int32_t dim = lane / kRuns; dim < At::kDims; dim += kWarp / kRuns) {
    copy_16(tile + At::key(dim, run), &keys.stored(dim), slot < end);
  }
  for (int32_t i = lane; i < kTile * (At::kDims / 8); i += kWarp) {
    const int32_t at = i / (At::kDims / 8), unit = i % (At::kDims / 8);
    const bool there = first + at < end;
    copy_16(tile + At::value(at, unit), &entries.value(there ? first + at : first).stored(unit * 8), there);
  }
  end_copy_group();
}

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

template <int32_t kSteps>
__device__ void attend_tile(const Unit* tile, const Queries<kSteps>& queries, int32_t slots, float scale,
                            WarpState<kSteps>& state) {
  using At = Tile<kSteps>;
  const auto lane = static_cast<int32_t>(threadIdx.x) % kWarp;
  const int32_t g = lane / 4, matrix = lane / 8, row = lane % 8;
  float scores[4] = {};
  for (int32_t step = 0; step < kSteps; ++step) {
    uint32_t keys[4];  // rows are dimensions in memory, slots in the product
    load_transposed(keys, tile + At::key(step * 16 + matrix / 2 * 8 + row, matrix % 2));
    mma_f16(scores, keys, queries.low[step][0], queries.low[step][1]);
    mma_f16(scores, keys, queries.high[step][0], queries.high[step][1]);
  }
  float weights[4];
  for (int32_t column = 0; column < 2; ++column) {
    const float first = g < slots ? scores[column] * scale : -INFINITY;
    const float second = g + 8 < slots ? scores[column + 2] * scale : -INFINITY;
    const float before = state.largest[column];
    const float largest = fmaxf(before, over_rows_max(fmaxf(first, second)));
    const float kept = __expf(before - largest);
    weights[column] = __expf(first - largest);
    weights[column + 2] = __expf(second - largest);
    state.largest[column] = largest;
    state.sum[column] = state.sum[column] * kept + weights[column] + weights[column + 2];
    for (int32_t step = 0; step < kSteps; ++step) {
      state.values[step][column] *= kept;
      state.values[step][column + 2] *= kept;
    }
  }
  const uint32_t first_slots = transposed(pack_halves(weights[0], weights[1]));
  const uint32_t last_slots = transposed(pack_halves(weights[2], weights[3]));
  for (int32_t step = 0; step < kSteps; ++step) {
    uint32_t values[4];  // rows are slots in memory, dimensions in the product
    load_transposed(values, tile + At::value(matrix / 2 * 8 + row, step * 2 + matrix % 2));
    mma_f16(state.values[step], values, first_slots, last_slots);
  }
}

// The warps' states added up in their order: values [kHeads][head_dim]. `room` [kWarps][kHeads][2].
template <int32_t kSteps>
__device__ Attended<kHeads> add_states(WarpState<kSteps>& state, float* room, float* values) {
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
            float& sum = values[head * d + step * 16 + half * 8 + g];
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

// Slots [begin, end) of a lane of f16 entries. Warp w has tiles w, w + kWarps, ...
template <int32_t kSteps>
__device__ Attended<kHeads> attend_halves(const AttendArgs& args, const AttendUnit& unit, int32_t begin, int32_t end,
                                          float* shared) {
  constexpr int32_t kTileUnits = Tile<kSteps>::kUnits;
  const auto warp = static_cast<int32_t>(threadIdx.x) / kWarp;
  float* const room = shared + kHeads * kSteps * 16;
  auto* const tiles = reinterpret_cast<Unit*>(room + kWarps * kHeads * 2) + warp * kStages * kTileUnits;
  const LaneEntries<KvDtype::kF16> entries(args.kv, *unit.lane);
  const Queries<kSteps> queries = load_query_fragments<kSteps>(args.q.f32_row(unit.row), unit.heads);
  WarpState<kSteps> state;
  for (int32_t column = 0; column < 2; ++column) state.largest[column] = -INFINITY, state.sum[column] = 0;
  for (int32_t step = 0; step < kSteps; ++step) {
    for (float& value : state.values[step]) value = 0;
  }
  constexpr int32_t kStride = kWarps * kTile;
  int32_t stage = 0;
  const int32_t first = begin + warp * kTile;
  if (first < end) start_tile<kSteps>(entries, first, end, tiles);
  for (int32_t tile = first; tile < end; tile += kStride) {
    const int32_t next = tile + kStride;
    if (next < end) {
      start_tile<kSteps>(entries, next, end, tiles + (stage ^ 1) * kTileUnits);
      wait_for_copies<1>();
    } else {
      wait_for_copies<0>();
    }
    __syncwarp();
    attend_tile<kSteps>(tiles + stage * kTileUnits, queries, end - tile, args.scale, state);
    __syncwarp();  // the stage is filled anew
    stage ^= 1;
  }
  __syncthreads();  // whoever reads what was there
  return add_states<kSteps>(state, room, shared);
}

template <int32_t kSteps>
struct MatrixChunks {
  static constexpr int32_t kHeadsOfUnit = kHeads;
  static constexpr int32_t kThreads = gpu::kThreads;

  __device__ static Attended<kHeads> attend(const AttendArgs& args, const AttendUnit& unit, int32_t begin, int32_t end,
                                            float* shared) {
    if (unit.lane->dtype == KvDtype::kF16) return attend_halves<kSteps>(args, unit, begin, end, shared);
    return attend_slots < kHeads, kSteps <= 4 ? 2
                                              : 4 > (args.kv, *unit.lane, begin, end, args.q.f32_row(unit.row),
                                                     unit.heads, args.scale, shared);
  }
  static constexpr size_t shared_bytes() {
    constexpr size_t kMatrix = sizeof(float) * (kHeads * kSteps * 16 + kWarps * kHeads * 2) +
                               sizeof(Unit) * kWarps * kStages * Tile<kSteps>::kUnits;
    return std::max(kMatrix, sizeof(float) * attend_floats(kHeads, kSteps * 16));
  }
};

}  // namespace

void attend(Stream& stream, const AttendArgs& args) {
  const PageLayout layout(KvDtype::kF16, args.kv.head_dim, args.kv.page_bytes);
  const bool whole_runs = layout.slots() % kRun == 0 && args.kv.page_bytes % sizeof(Unit) == 0;
  const auto run = [&](auto worker) { attend_split<decltype(worker)>(stream, args, decltype(worker)::shared_bytes()); };
  if (args.phase == Phase::kPrefill && whole_runs && attend_prompt(stream, args)) {
    return attend_prompt_exact_but_f16(stream, args);
  }
  if (args.phase == Phase::kDecode && whole_runs) {
    switch (args.kv.head_dim) {
      case 64:
        return run(MatrixChunks<4>());
      case 80:
        return run(MatrixChunks<5>());
      case 96:
        return run(MatrixChunks<6>());
      case 128:
        return run(MatrixChunks<8>());
      default:
        break;
    }
  }
  attend_exact(stream, args);
}

}  // namespace pkv::gpu
