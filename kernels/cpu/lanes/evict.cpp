// Which entries go, and their scores. A lane's entries are passed over several times, each pass a plain loop over
// scores and positions that compilers turn into vectors.
#include "kernels/cpu/lanes/evict.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "kernels/check.h"
#include "kernels/cpu/parallel.h"
#include "kernels/entry_score.h"

namespace pkv {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// One lane of one sequence of a step.
struct LaneTask {
  const EvictingRow& row;
  Lane& lane;
  int32_t index;  // among all lanes of the sequence

  float* scores() const { return row.scores + lane.first_score; }
  int32_t* positions() const { return row.positions + lane.first_score; }
};

int64_t lane_count(const EvictingStep& step) { return int64_t{step.count} * step.layers * step.kv_heads; }

LaneTask lane_task(const EvictingStep& step, int64_t task) {
  const auto head = static_cast<int32_t>(task % step.kv_heads);
  const auto layer = static_cast<int32_t>(task / step.kv_heads % step.layers);
  const EvictingRow& row = step.rows[task / step.kv_heads / step.layers];
  return {.row = row,
          .lane = step.lanes[layer * step.lanes_per_layer + row.row * step.kv_heads + head],
          .index = (step.first_layer + layer) * step.kv_heads + head};
}

// The lowest rank of a candidate with a score; infinite where there is none.
template <EntryRank kRank>
float lowest_rank(const EvictingRow& row, const float* __restrict scores, const int32_t* __restrict positions,
                  int32_t entries) {
  const int32_t newest = row.position - row.window;
  float lowest = kInfinity;
  for (int32_t s = 0; s < entries; ++s) {
    const float rank = entry_rank(kRank, scores[s], row.position - positions[s]);
    const bool ranked = (positions[s] <= newest) & (scores[s] < kInfinity);  // false of what has no score
    const float here = ranked ? rank : kInfinity;
    lowest = here < lowest ? here : lowest;
  }
  return lowest;
}

// The latest position of a candidate of that rank.
template <EntryRank kRank>
int32_t latest_of(const EvictingRow& row, const float* __restrict scores, const int32_t* __restrict positions,
                  int32_t entries, float rank) {
  const int32_t newest = row.position - row.window;
  int32_t latest = -1;
  for (int32_t s = 0; s < entries; ++s) {
    const float here = entry_rank(kRank, scores[s], row.position - positions[s]);
    const bool equal = (positions[s] <= newest) & (scores[s] < kInfinity) & (here == rank);
    const int32_t at = equal ? positions[s] : -1;
    latest = at > latest ? at : latest;
  }
  return latest;
}

// The oldest position of a candidate, scored or not.
int32_t oldest_of(const EvictingRow& row, const float* __restrict scores, const int32_t* __restrict positions,
                  int32_t entries) {
  constexpr int32_t kNone = std::numeric_limits<int32_t>::max();
  int32_t oldest = kNone;
  for (int32_t s = 0; s < entries; ++s) {
    const int32_t at = may_go(row, scores[s], positions[s]) ? positions[s] : kNone;
    oldest = at < oldest ? at : oldest;
  }
  PKV_CHECK(oldest != kNone, "a full lane without an entry that may go");
  return oldest;
}

template <EntryRank kRank>
int32_t position_to_go(const LaneTask& task) {
  const float* scores = task.scores();
  const int32_t* positions = task.positions();
  const float lowest = lowest_rank<kRank>(task.row, scores, positions, task.lane.length);
  return lowest < kInfinity ? latest_of<kRank>(task.row, scores, positions, task.lane.length, lowest)
                            : oldest_of(task.row, scores, positions, task.lane.length);
}

int32_t position_to_go(const LaneTask& task) {
  switch (task.row.rank) {
    case EntryRank::kScore:
      return position_to_go<EntryRank::kScore>(task);
    case EntryRank::kScorePerQuery:
      return position_to_go<EntryRank::kScorePerQuery>(task);
    case EntryRank::kAge:
      return position_to_go<EntryRank::kAge>(task);
  }
  __builtin_unreachable();
}

float score_without_key(const EvictingRow& row, int32_t layer, int32_t head) {
  switch (row.new_score) {
    case NewEntryScore::kZero:
      return 0.0f;
    case NewEntryScore::kPosition:
      return static_cast<float>(row.position);
    case NewEntryScore::kHash:
      return entry_hash(row.seed, layer, head, row.position);
    default:
      return kNoScore;
  }
}

double length_of(const float* vector, int64_t count) {
  double squares = 0;
  for (int64_t i = 0; i < count; ++i) squares += static_cast<double>(vector[i]) * vector[i];
  return std::sqrt(squares);
}

// Minus the cosine of a key to the sum of unit-length keys that it is added to.
float dissimilarity(const float* key, float* sum, int64_t count) {
  const double length = length_of(key, count);
  if (length == 0) return 0.0f;
  double product = 0;
  for (int64_t i = 0; i < count; ++i) {
    sum[i] = static_cast<float>(sum[i] + key[i] / length);
    product += static_cast<double>(key[i]) * sum[i];
  }
  const double lengths = length * length_of(sum, count);
  return lengths > 0 ? static_cast<float>(-product / lengths) : 0.0f;
}

// Entries of the longest lane.
int64_t longest(const Lane* lanes, int64_t count) {
  int32_t entries = 0;
  for (int64_t i = 0; i < count; ++i) entries = std::max(entries, lanes[i].length);
  return entries;
}

}  // namespace

void cpu_take_columns(const TensorView& from, const TensorView& columns, const TensorView& out) {
  for (int64_t row = 0; row < out.rows; ++row) {
    const float* source = from.f32_row(row);
    const int32_t* chosen = columns.i32_row(row);
    std::transform(chosen, chosen + out.cols, out.f32_row(row), [&](int32_t column) { return source[column]; });
  }
}

void cpu_choose_slots(const EvictingStep& step, ThreadPool& pool) {
  if (step.count == 0) return;
  const int64_t entries = longest(step.lanes, int64_t{step.layers} * step.lanes_per_layer);
  parallel_for(pool, lane_count(step), entries, [&](int64_t index) {
    const LaneTask task = lane_task(step, index);
    int32_t& slot = task.lane.write_slot;
    if (slot == kChosenByEviction) {
      const int32_t* positions = task.positions();
      slot = static_cast<int32_t>(std::find(positions, positions + task.lane.length, position_to_go(task)) - positions);
    }
    task.positions()[slot] = task.row.position;
    task.scores()[slot] = score_without_key(task.row, task.index / step.kv_heads, task.index % step.kv_heads);
  });
}

void cpu_score_new_entries(const EvictingStep& step, const TensorView& k, ThreadPool& pool) {
  const int64_t d = k.cols / step.kv_heads;
  parallel_for(pool, lane_count(step), 4 * d, [&](int64_t index) {
    const LaneTask task = lane_task(step, index);
    if (!needs_key(task.row.new_score)) return;
    const float* key = k.f32_row(task.row.row) + task.index % step.kv_heads * d;
    task.scores()[task.lane.write_slot] = task.row.new_score == NewEntryScore::kKeyNorm
                                              ? static_cast<float>(-length_of(key, d))
                                              : dissimilarity(key, task.row.key_sums + task.index * d, d);
  });
}

void cpu_set_scores(const ScoredLanes& lanes, const TensorView& scores, int32_t newest, ThreadPool& pool) {
  parallel_for(pool, lanes.count, longest(lanes.lanes, lanes.count), [&](int64_t g) {
    const int32_t entries = entries_before(lanes.lanes[g]);
    const int32_t scored = std::max(0, entries - newest);
    float* target = lanes.scores + lanes.lanes[g].first_score;
    const float* made = scores.f32_row(g);
    for (int32_t slot = 0; slot < scored; ++slot)
      target[slot] = target[slot] == kNeverEvicted ? target[slot] : made[slot];
    std::replace_if(
        target + scored, target + entries, [](float score) { return score != kNeverEvicted; }, kNoScore);
  });
}

void cpu_order_entries(const ScoredLanes& lanes, const TensorView& order, const TensorView& counts, ThreadPool& pool) {
  parallel_for(pool, lanes.count, 16 * longest(lanes.lanes, lanes.count), [&](int64_t g) {
    counts.i32()[g] = entries_before(lanes.lanes[g]);
    const auto entries = static_cast<size_t>(counts.i32()[g]);
    float* scores = lanes.scores + lanes.lanes[g].first_score;
    int32_t* positions = lanes.positions + lanes.lanes[g].first_score;
    int32_t* slots = order.i32_row(g);
    std::iota(slots, slots + entries, 0);
    if (std::is_sorted(positions, positions + entries)) return;
    std::sort(slots, slots + entries, [&](int32_t a, int32_t b) { return positions[a] < positions[b]; });
    const std::vector<float> old_scores(scores, scores + entries);
    std::transform(slots, slots + entries, scores, [&](int32_t from) { return old_scores[static_cast<size_t>(from)]; });
    std::sort(positions, positions + entries);
  });
}

}  // namespace pkv
