// Attention of prompts on tensor cores, for f16 entries. A block has as many rows as make 128 with the query heads of
// one KV head, a warp 16 of these, and all share tiles of slots that begin at the lane's slot 0: what a row comes to
// does not depend on how a prompt is cut. Queries and weights are rounded to 16 bits.
#include <algorithm>

#include "kernels/cuda/attend_prompt.h"
#include "kernels/cuda/gpu.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/matrix.cuh"
#include "kernels/cuda/page_reader.cuh"

namespace pkv::gpu {
namespace {

constexpr int32_t kThreads = 256;
constexpr int32_t kRows = kThreads / kWarp * 16;  // of a block: a query head of a row each
constexpr int32_t kTile = 64;                     // slots
constexpr int32_t kRun = 8;                       // slots that lie together in a page: 16 bytes of a dimension of keys
constexpr int32_t kRuns = kTile / kRun;
constexpr int32_t kStages = 2;

// Of 16 bytes each.
using Unit = uint4;

// A tile in shared memory: keys [head_dim][kRuns], the runs of a dimension permuted by its last three bits; values
// [kTile][head_dim / 8 + 1]. Eight rows of a matrix then lie in different banks.
template <int32_t kSteps>
struct Tile {
  static constexpr int32_t kDims = kSteps * 16, kPitch = kDims / 8 + 1;
  static constexpr int32_t kKeyUnits = kDims * kRuns, kUnits = kKeyUnits + kTile * kPitch;

  __device__ static int32_t key(int32_t dim, int32_t run) { return kRuns * dim + (run ^ (dim & 7)); }
  __device__ static int32_t value(int32_t slot, int32_t unit) { return kKeyUnits + slot * kPitch + unit; }
};

// Rows [first, end) of q, of one span, for one KV head.
struct Segment {
  int32_t first = 0;
  int32_t end = 0;
  int32_t first_head = 0;
  int32_t group = 0;    // query heads
  int32_t visible = 0;  // slots that the first row sees, each next one more

  __device__ int32_t heads() const { return (end - first) * group; }  // of all rows
  __device__ int32_t most_visible() const { return visible + end - first - 1; }
  // Slots that a head of a row sees; none beyond the last.
  __device__ int32_t limit(int32_t head) const { return head < heads() ? visible + head / group : 0; }
  // Where its query or result begins, in elements of its row.
  __device__ int64_t column(int32_t head, int32_t head_dim) const {
    return static_cast<int64_t>(first_head + head % group) * head_dim;
  }
};

// Slots [first, first + kTile) of a lane, those from `end` on as zeros. All threads of the block.
template <int32_t kSteps>
__device__ void start_tile(const LaneEntries<KvDtype::kF16>& entries, int32_t first, int32_t end, Unit* tile) {
  using At = Tile<kSteps>;
  constexpr int32_t kValueUnits = At::kDims / 8;
  const auto thread = static_cast<int32_t>(threadIdx.x);
  const int32_t run = thread % kRuns, slot = first + run * kRun;
  const auto keys = entries.key(slot < end ? slot : first);
  for (int32_t dim = thread / kRuns; dim < At::kDims; dim += kThreads / kRuns) {
    copy_16(tile + At::key(dim, run), &keys.stored(dim), slot < end);
  }
  for (int32_t i = thread; i < kTile * kValueUnits; i += kThreads) {
    const int32_t at = first + i / kValueUnits, unit = i % kValueUnits;
    copy_16(tile + At::value(i / kValueUnits, unit), &entries.value(at < end ? at : first).stored(unit * 8), at < end);
  }
  end_copy_group();
}

// What a warp has of its 16 heads of rows: thread's are g and g + 8, of which largest and sum (over its own slots) are
// [0] and [1]; values are C fragments of 8 dimensions each.
template <int32_t kSteps>
struct WarpState {
  float largest[2], sum[2];
  float values[2 * kSteps][4];
};

template <int32_t kSteps>
__device__ void attend_tile(const Unit* tile, const uint32_t (&queries)[kSteps][4], int32_t first,
                            const int32_t (&limits)[2], float scale, WarpState<kSteps>& state) {
  using At = Tile<kSteps>;
  const auto lane = static_cast<int32_t>(threadIdx.x) % kWarp;
  const int32_t t = lane % 4, matrix = lane / 8, row = lane % 8;
  float scores[kRuns][4] = {};
  for (int32_t step = 0; step < kSteps; ++step) {
    for (int32_t run = 0; run < kRuns; run += 2) {
      uint32_t keys[4];  // two runs' first eight dimensions, then their last eight
      load_transposed(keys, tile + At::key(step * 16 + matrix / 2 * 8 + row, run + matrix % 2));
      mma_f16(scores[run], queries[step], keys[0], keys[2]);
      mma_f16(scores[run + 1], queries[step], keys[1], keys[3]);
    }
  }
  for (int32_t r = 0; r < 2; ++r) {
    float largest = state.largest[r];
    for (int32_t run = 0; run < kRuns; ++run) {
      for (int32_t i = 0; i < 2; ++i) {
        float& score = scores[run][2 * r + i];
        score = first + run * kRun + 2 * t + i < limits[r] ? score * scale : -INFINITY;
        largest = fmaxf(largest, score);
      }
    }
    largest = fmaxf(largest, __shfl_xor_sync(kAllLanes, largest, 1));
    largest = fmaxf(largest, __shfl_xor_sync(kAllLanes, largest, 2));
    const float base = largest == -INFINITY ? 0.0f : largest;  // of a head that sees nothing
    const float kept = __expf(state.largest[r] - base);
    state.largest[r] = largest;
    state.sum[r] *= kept;
    for (auto& run : scores) {
      for (int32_t i = 0; i < 2; ++i) {
        float& weight = run[2 * r + i];
        weight = __expf(weight - base);
        state.sum[r] += weight;
      }
    }
    for (auto& values : state.values) {
      values[2 * r] *= kept;
      values[2 * r + 1] *= kept;
    }
  }
  for (int32_t run = 0; run < kRuns; run += 2) {
    const uint32_t weights[4] = {
        pack_halves(scores[run][0], scores[run][1]), pack_halves(scores[run][2], scores[run][3]),
        pack_halves(scores[run + 1][0], scores[run + 1][1]), pack_halves(scores[run + 1][2], scores[run + 1][3])};
    for (int32_t unit = 0; unit < 2 * kSteps; unit += 2) {
      uint32_t values[4];  // the first run's slots at eight dimensions and the next eight, then the second run's
      load_transposed(values, tile + At::value((run + matrix / 2) * kRun + row, unit + matrix % 2));
      mma_f16(state.values[unit], weights, values[0], values[2]);
      mma_f16(state.values[unit + 1], weights, values[1], values[3]);
    }
  }
}

// The queries of a warp's heads as A fragments.
template <int32_t kSteps>
__device__ void load_queries(const AttendArgs& args, const Segment& segment, const int32_t (&heads)[2],
                             uint32_t (&queries)[kSteps][4]) {
  const int32_t t = static_cast<int32_t>(threadIdx.x) % 4;
  for (int32_t r = 0; r < 2; ++r) {
    const bool there = heads[r] < segment.heads();
    const float* from =
        there ? args.q.f32_row(segment.first + heads[r] / segment.group) + segment.column(heads[r], kSteps * 16)
              : nullptr;
    for (int32_t step = 0; step < kSteps; ++step) {
      for (int32_t i = 0; i < 2; ++i) {
        const int32_t dim = step * 16 + i * 8 + 2 * t;
        queries[step][r + 2 * i] = there ? pack_halves(from[dim], from[dim + 1]) : 0;
      }
    }
  }
}

template <int32_t kSteps>
__device__ void write_heads(const AttendArgs& args, const Segment& segment, const int32_t (&heads)[2],
                            const WarpState<kSteps>& state) {
  const int32_t t = static_cast<int32_t>(threadIdx.x) % 4;
  for (int32_t r = 0; r < 2; ++r) {
    float sum = state.sum[r];
    sum += __shfl_xor_sync(kAllLanes, sum, 1);
    sum += __shfl_xor_sync(kAllLanes, sum, 2);
    if (heads[r] >= segment.heads()) continue;
    const int32_t row = segment.first + heads[r] / segment.group;
    float* out = args.out.f32_row(row) + segment.column(heads[r], kSteps * 16);
    const float factor = sum > 0 ? 1.0f / sum : 0.0f;
    for (int32_t unit = 0; unit < 2 * kSteps; ++unit) {
      out[unit * 8 + 2 * t] = state.values[unit][2 * r] * factor;
      out[unit * 8 + 2 * t + 1] = state.values[unit][2 * r + 1] * factor;
    }
    if (t == 0 && args.lse.data != nullptr) {
      args.lse.f32_row(row)[segment.first_head + heads[r] % segment.group] = state.largest[r] + logf(sum);
    }
  }
}

template <int32_t kSteps>
__device__ void attend_segment(const AttendArgs& args, const Segment& segment, const Lane& lane, Unit* tiles) {
  constexpr int32_t kUnits = Tile<kSteps>::kUnits;
  const auto thread = static_cast<int32_t>(threadIdx.x);
  const int32_t first_head = thread / kWarp * 16 + thread % kWarp / 4;
  const int32_t heads[2] = {first_head, first_head + 8};
  const int32_t limits[2] = {segment.limit(heads[0]), segment.limit(heads[1])};
  const LaneEntries<KvDtype::kF16> entries(args.kv, lane);
  uint32_t queries[kSteps][4];
  load_queries<kSteps>(args, segment, heads, queries);
  WarpState<kSteps> state;
  for (int32_t r = 0; r < 2; ++r) state.largest[r] = -INFINITY, state.sum[r] = 0;
  for (auto& values : state.values) {
    for (float& value : values) value = 0;
  }
  const int32_t end = segment.most_visible();
  const bool has_heads = thread / kWarp * 16 < segment.heads();
  int32_t stage = 0;
  if (end > 0) start_tile<kSteps>(entries, 0, end, tiles);
  for (int32_t tile = 0; tile < end; tile += kTile) {
    if (tile + kTile < end) {
      start_tile<kSteps>(entries, tile + kTile, end, tiles + (stage ^ 1) * kUnits);
      wait_for_copies<1>();
    } else {
      wait_for_copies<0>();
    }
    __syncthreads();
    if (has_heads) attend_tile<kSteps>(tiles + stage * kUnits, queries, tile, limits, args.scale, state);
    __syncthreads();  // the stage is filled anew
    stage ^= 1;
  }
  write_heads<kSteps>(args, segment, heads, state);
}

// Block (x, y): the x-th rows of q from the end, which see most, for KV head y. Lanes of other formats are left alone.
template <int32_t kSteps>
__global__ void __launch_bounds__(kThreads) attend_prompt_kernel(AttendArgs args, int32_t rows_of_block) {
  PKV_DYNAMIC_SHARED(Unit, tiles);
  const auto kv_head = static_cast<int32_t>(blockIdx.y);
  const int32_t group = args.q_heads / args.kv_heads;
  const int32_t first = static_cast<int32_t>(gridDim.x - 1 - blockIdx.x) * rows_of_block;
  const int32_t end = min(static_cast<int32_t>(args.q.rows), first + rows_of_block);
  for (int32_t row = first; row < end;) {
    const RowSpan* span = span_of(args.spans, row + args.skipped_rows);
    if (span == nullptr) {
      ++row;
      continue;
    }
    const int32_t span_begin = span->first_row - args.skipped_rows;
    const Lane& lane = args.kv.lanes[span->first_lane + kv_head];
    const Segment segment{row, min(end, span_begin + span->rows), kv_head * group, group,
                          lane.visible + row - span_begin};
    if (lane.dtype == KvDtype::kF16) attend_segment<kSteps>(args, segment, lane, tiles);
    row = segment.end;
  }
}

template <int32_t kSteps>
void launch_prompt(Stream& stream, const AttendArgs& args) {
  const int32_t rows_of_block = kRows / (args.q_heads / args.kv_heads);
  launch(stream, "attend",
         {.blocks = blocks_for(args.q.rows, rows_of_block),
          .threads = kThreads,
          .blocks_y = args.kv_heads,
          .shared_bytes = sizeof(Unit) * kStages * Tile<kSteps>::kUnits},
         attend_prompt_kernel<kSteps>, args, rows_of_block);
}

}  // namespace

bool attend_prompt(Stream& stream, const AttendArgs& args) {
  if (args.q_heads / args.kv_heads > kRows) return false;
  switch (args.kv.head_dim) {
    case 64:
      launch_prompt<4>(stream, args);
      return true;
    case 80:
      launch_prompt<5>(stream, args);
      return true;
    case 96:
      launch_prompt<6>(stream, args);
      return true;
    case 128:
      launch_prompt<8>(stream, args);
      return true;
    default:
      return false;
  }
}

}  // namespace pkv::gpu
