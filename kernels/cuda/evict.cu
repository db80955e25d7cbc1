// Evictions while generating: which slot a new token takes, what it is scored by, and scores that are made anew.
#include <algorithm>

#include "kernels/cuda/gpu.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/sort.cuh"

namespace pkv::gpu {
namespace {

constexpr int32_t kThreads = 128;

// One lane of one sequence of a step.
struct LaneTask {
  const EvictingRow& row;
  Lane& lane;
  int32_t index;  // among all lanes of the sequence

  __device__ float* scores() const { return row.scores + lane.first_score; }
  __device__ int32_t* positions() const { return row.positions + lane.first_score; }
};

int64_t lane_count(const EvictingStep& step) { return int64_t{step.count} * step.layers * step.kv_heads; }

__device__ LaneTask lane_task(const EvictingStep& step, int64_t task) {
  const auto head = static_cast<int32_t>(task % step.kv_heads);
  const auto layer = static_cast<int32_t>(task / step.kv_heads % step.layers);
  const EvictingRow& row = step.rows[task / step.kv_heads / step.layers];
  return {row, step.lanes[int64_t{layer} * step.lanes_per_layer + row.row * step.kv_heads + head],
          (step.first_layer + layer) * step.kv_heads + head};
}

// ---- choose_slots

// The entry that would go of those looked at: the lowest rank, of equals the latest. Those without a score come after
// all others, the oldest of them first.
struct Candidate {
  int32_t slot;  // below 0: none
  int32_t position;
  float rank;
  int32_t scored;

  __device__ bool goes_before(const Candidate& other) const {
    if (slot < 0 || other.slot < 0) return slot >= 0;
    if (scored != other.scored) return scored > other.scored;
    if (scored == 0) return position < other.position;
    return rank < other.rank || (rank == other.rank && position > other.position);
  }
};

__device__ Candidate candidate_at(const LaneTask& task, int32_t slot) {
  const float score = task.scores()[slot];
  const int32_t position = task.positions()[slot];
  if (!may_go(task.row, score, position)) return {-1, 0, 0, 0};
  if (std::isnan(score)) return {slot, position, 0, 0};
  return {slot, position, entry_rank(task.row.rank, score, task.row.position - position), 1};
}

// The score of an entry that is known before its key is.
__device__ float first_score(const EvictingRow& row, int32_t layer, int32_t head) {
  switch (row.new_score) {
    case NewEntryScore::kZero:
      return 0;
    case NewEntryScore::kPosition:
      return static_cast<float>(row.position);
    case NewEntryScore::kHash:
      return entry_hash(row.seed, layer, head, row.position);
    case NewEntryScore::kUnscored:
    case NewEntryScore::kKeyNorm:
    case NewEntryScore::kKeySimilarity:
      break;
  }
  return kNoScore;
}

// A block a lane.
__global__ void __launch_bounds__(kThreads) choose_slots_kernel(EvictingStep step) {
  PKV_SHARED(Candidate, candidates, kThreads);
  const LaneTask task = lane_task(step, blockIdx.x);
  const auto thread = static_cast<int32_t>(threadIdx.x);
  int32_t slot = task.lane.write_slot;
  if (slot == kChosenByEviction) {
    Candidate best{-1, 0, 0, 0};
    for (int32_t s = thread; s < task.lane.length; s += kThreads) {
      const Candidate here = candidate_at(task, s);
      if (here.goes_before(best)) best = here;
    }
    candidates[thread] = best;
    for (int32_t half = kThreads / 2; half > 0; half /= 2) {
      __syncthreads();
      if (thread < half && candidates[thread + half].goes_before(candidates[thread])) {
        candidates[thread] = candidates[thread + half];
      }
    }
    slot = candidates[0].slot;  // of thread 0, which alone needs it
  }
  if (thread != 0) return;
  PKV_DEVICE_CHECK(slot >= 0, "a full lane without an entry that may go");
  task.lane.write_slot = slot;
  task.positions()[slot] = task.row.position;
  task.scores()[slot] = first_score(task.row, task.index / step.kv_heads, task.index % step.kv_heads);
}

// ---- score_new_entries: sums in float64, element after element, by every thread of a warp alike

__device__ double length_of(const float* vector, int64_t count) {
  double squares = 0;
  for (int64_t i = 0; i < count; ++i) squares += static_cast<double>(vector[i]) * vector[i];
  return sqrt(squares);
}

// Adds the key to the sum, as if it had been there when the prompt was scored, and compares it with that.
__device__ float dissimilarity(const float* key, float* sum, int64_t count) {
  const double length = length_of(key, count);
  if (length == 0) return 0;
  for (int64_t i = threadIdx.x; i < count; i += kWarp) sum[i] = static_cast<float>(sum[i] + key[i] / length);
  __syncwarp();
  double product = 0;
  for (int64_t i = 0; i < count; ++i) product += static_cast<double>(key[i]) * sum[i];
  const double lengths = length * length_of(sum, count);
  return lengths > 0 ? static_cast<float>(-product / lengths) : 0.0f;
}

// A block of one warp a lane.
__global__ void __launch_bounds__(kWarp) score_new_entries_kernel(EvictingStep step, TensorView k) {
  const LaneTask task = lane_task(step, blockIdx.x);
  if (!needs_key(task.row.new_score)) return;
  const int64_t d = k.cols / step.kv_heads;
  const float* key = k.f32_row(task.row.row) + task.index % step.kv_heads * d;
  const float score = task.row.new_score == NewEntryScore::kKeyNorm
                          ? static_cast<float>(-length_of(key, d))
                          : dissimilarity(key, task.row.key_sums + task.index * d, d);
  if (threadIdx.x == 0) task.scores()[task.lane.write_slot] = score;
}

// ---- keep_queries

// Blocks (x, y): columns x * kThreads and following of the query of the step's y-th evicting sequence.
__global__ void keep_queries_kernel(EvictingStep step, TensorView q) {
  const EvictingRow& row = step.rows[blockIdx.y];
  const int64_t column = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (row.queries == nullptr || column >= q.cols) return;
  const int64_t place = int64_t{step.first_layer} * row.window + row.position % row.window;
  row.queries[place * q.cols + column] = q.f32_row(row.row)[column];
}

// ---- set_scores

// Blocks (x, y) share the slots of lane y.
__global__ void set_scores_kernel(ScoredLanes lanes, TensorView made, int32_t newest) {
  const Lane& lane = lanes.lanes[blockIdx.y];
  float* scores = lanes.scores + lane.first_score;
  const float* anew = made.f32_row(blockIdx.y);
  const int32_t entries = entries_before(lane), threads = static_cast<int32_t>(gridDim.x) * kThreads;
  for (auto slot = static_cast<int32_t>(blockIdx.x * kThreads + threadIdx.x); slot < entries; slot += threads) {
    if (scores[slot] != kNeverEvicted) scores[slot] = slot < entries - newest ? anew[slot] : kNoScore;
  }
}

LaunchShape over_slots(const ScoredLanes& lanes, const TensorView& scores) {
  return {
      .blocks = std::max<int64_t>(1, blocks_for(scores.cols, kThreads)), .threads = kThreads, .blocks_y = lanes.count};
}

// ---- order_entries

// What entries are put in order by: positions, and those that a lane does not have after all others.
struct PositionEntry {
  ScoredLanes lanes;

  __device__ uint64_t operator()(int32_t index, int32_t slot) const {
    const Lane& lane = lanes.lanes[index];
    if (slot >= entries_before(lane)) return sort_entry(~0u, slot);
    return sort_entry(static_cast<uint32_t>(lanes.positions[lane.first_score + slot]), slot);
  }
};

// Blocks (x, y): places x * kThreads and following of lane y. ordered [lanes][columns]: their scores, beside where
// these belong.
__global__ void __launch_bounds__(kThreads)
    take_order_kernel(ScoredLanes lanes, const uint64_t* sorted, TensorView order, float* ordered) {
  const Lane& lane = lanes.lanes[blockIdx.y];
  const auto place = static_cast<int32_t>(blockIdx.x * kThreads + threadIdx.x);
  if (place >= entries_before(lane)) return;
  const int64_t at = int64_t{blockIdx.y} * order.cols + place;
  const int32_t slot = sorted_index(sorted[at]);
  order.i32_row(blockIdx.y)[place] = slot;
  ordered[at] = lanes.scores[lane.first_score + slot];
}

__global__ void put_back_kernel(ScoredLanes lanes, const uint64_t* sorted, const float* ordered, int64_t columns,
                                int32_t* counts) {
  const Lane& lane = lanes.lanes[blockIdx.y];
  const int32_t entries = entries_before(lane);
  const auto slot = static_cast<int32_t>(blockIdx.x * kThreads + threadIdx.x);
  if (slot == 0) counts[blockIdx.y] = entries;
  if (slot >= entries) return;
  const int64_t at = blockIdx.y * columns + slot;
  lanes.scores[lane.first_score + slot] = ordered[at];
  lanes.positions[lane.first_score + slot] = static_cast<int32_t>(sorted_number(sorted[at]));
}

}  // namespace

void choose_slots(Stream& stream, const EvictingStep& step) {
  launch(stream, "choose_slots", {.blocks = lane_count(step), .threads = kThreads}, choose_slots_kernel, step);
}

void score_new_entries(Stream& stream, const EvictingStep& step, const TensorView& k) {
  launch(stream, "score_new_entries", {.blocks = lane_count(step), .threads = kWarp}, score_new_entries_kernel, step,
         k);
}

void keep_queries(Stream& stream, const EvictingStep& step, const TensorView& q) {
  launch(stream, "keep_queries", {.blocks = blocks_for(q.cols, kThreads), .threads = kThreads, .blocks_y = step.count},
         keep_queries_kernel, step, q);
}

void set_scores(Stream& stream, const ScoredLanes& lanes, const TensorView& scores, int32_t newest) {
  launch(stream, "set_scores", over_slots(lanes, scores), set_scores_kernel, lanes, scores, newest);
}

void order_entries(Stream& stream, const ScoredLanes& lanes, const TensorView& order, const TensorView& counts) {
  const int64_t entries = lanes.count * order.cols;
  const Scratch rooms(stream, (2 * sizeof(uint64_t) + sizeof(float)) * static_cast<size_t>(entries));
  auto* const room = rooms.as<uint64_t>();
  auto* const ordered = reinterpret_cast<float*>(room + 2 * entries);
  const uint64_t* sorted =
      sort_lanes(stream, PositionEntry{lanes}, lanes.count, static_cast<int32_t>(order.cols), room, room + entries);
  launch(stream, "order_entries", over_slots(lanes, order), take_order_kernel, lanes, sorted, order, ordered);
  launch(stream, "order_entries: back", over_slots(lanes, order), put_back_kernel, lanes, sorted, ordered, order.cols,
         counts.i32());
}

}  // namespace pkv::gpu
