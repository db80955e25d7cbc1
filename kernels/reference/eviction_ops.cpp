// The reference backend's evictions while generating: which slot a new token takes, what it is scored by, and how
// scores follow the attention.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "kernels/check.h"
#include "kernels/entry_score.h"
#include "kernels/reference/reference_backend.h"

namespace pkv {
namespace {

// Calls visit(row, lane, index of the lane among all of its sequence).
template <typename Visit>
void for_each_lane(const EvictingStep& step, Visit visit) {
  for (const EvictingRow* row = step.rows; row != step.rows + step.count; ++row) {
    for (int32_t layer = 0; layer < step.layers; ++layer) {
      for (int32_t head = 0; head < step.kv_heads; ++head) {
        const int32_t index = layer * step.lanes_per_layer + row->row * step.kv_heads + head;
        visit(*row, step.lanes[index], (step.first_layer + layer) * step.kv_heads + head);
      }
    }
  }
}

int32_t worst_slot(const EvictingRow& row, const float* scores, const int32_t* positions, int32_t entries) {
  int32_t worst = -1, oldest = -1;
  float worst_rank = 0;
  for (int32_t slot = 0; slot < entries; ++slot) {
    const int32_t at = positions[slot];
    if (!may_go(row, scores[slot], at)) continue;
    if (oldest < 0 || at < positions[oldest]) oldest = slot;
    if (std::isnan(scores[slot])) continue;
    const float rank = entry_rank(row.rank, scores[slot], row.position - at);
    const bool worse = worst < 0 || rank < worst_rank || (rank == worst_rank && at > positions[worst]);
    if (!worse) continue;
    worst = slot;
    worst_rank = rank;
  }
  const int32_t chosen = worst >= 0 ? worst : oldest;
  PKV_CHECK(chosen >= 0, "a full lane without an entry that may go");
  return chosen;
}

// The score of an entry that is known before its key is.
float first_score(const EvictingRow& row, int32_t layer, int32_t head) {
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

double length_of(const float* vector, int64_t count) {
  double squares = 0;
  for (int64_t i = 0; i < count; ++i) squares += static_cast<double>(vector[i]) * vector[i];
  return std::sqrt(squares);
}

// Adds the key to the sum, as if it had been there when the prompt was scored, and compares it with that.
float dissimilarity(const float* key, float* sum, int64_t count) {
  const double length = length_of(key, count);
  if (length == 0) return 0;
  double product = 0;
  for (int64_t i = 0; i < count; ++i) {
    sum[i] = static_cast<float>(sum[i] + key[i] / length);
    product += static_cast<double>(key[i]) * sum[i];
  }
  const double lengths = length * length_of(sum, count);
  return lengths > 0 ? static_cast<float>(-product / lengths) : 0.0f;
}

}  // namespace

void ReferenceBackend::take_columns(const TensorView& from, const TensorView& columns, const TensorView& out) {
  for (int64_t r = 0; r < out.rows; ++r) {
    for (int64_t i = 0; i < out.cols; ++i) {
      const int32_t column = columns.i32_row(r)[i];
      PKV_CHECK(column >= 0 && column < from.cols, "a column that is not there");
      out.f32_row(r)[i] = from.f32_row(r)[column];
    }
  }
}

void ReferenceBackend::choose_slots(const EvictingStep& step) {
  for_each_lane(step, [&](const EvictingRow& row, Lane& lane, int32_t index) {
    float* scores = row.scores + lane.first_score;
    int32_t* positions = row.positions + lane.first_score;
    if (lane.write_slot == kChosenByEviction) lane.write_slot = worst_slot(row, scores, positions, lane.length);
    positions[lane.write_slot] = row.position;
    scores[lane.write_slot] = first_score(row, index / step.kv_heads, index % step.kv_heads);
  });
}

void ReferenceBackend::score_new_entries(const EvictingStep& step, const TensorView& k) {
  const int64_t d = k.cols / step.kv_heads;
  for_each_lane(step, [&](const EvictingRow& row, Lane& lane, int32_t index) {
    if (!needs_key(row.new_score)) return;
    const float* key = k.f32_row(row.row) + index % step.kv_heads * d;
    float& score = row.scores[lane.first_score + lane.write_slot];
    score = row.new_score == NewEntryScore::kKeyNorm ? static_cast<float>(-length_of(key, d))
                                                     : dissimilarity(key, row.key_sums + index * d, d);
  });
}

void ReferenceBackend::set_scores(const ScoredLanes& lanes, const TensorView& scores, int32_t newest) {
  for (int32_t g = 0; g < lanes.count; ++g) {
    const int32_t entries = entries_before(lanes.lanes[g]);
    float* target = lanes.scores + lanes.lanes[g].first_score;
    for (int32_t slot = 0; slot < entries; ++slot) {
      if (target[slot] != kNeverEvicted) target[slot] = slot < entries - newest ? scores.f32_row(g)[slot] : kNoScore;
    }
  }
}

void ReferenceBackend::order_entries(const ScoredLanes& lanes, const TensorView& order, const TensorView& counts) {
  for (int32_t g = 0; g < lanes.count; ++g) {
    counts.i32()[g] = entries_before(lanes.lanes[g]);
    const auto entries = static_cast<size_t>(counts.i32()[g]);
    float* scores = lanes.scores + lanes.lanes[g].first_score;
    int32_t* positions = lanes.positions + lanes.lanes[g].first_score;
    std::vector<int32_t> slots(entries);
    std::iota(slots.begin(), slots.end(), 0);
    std::sort(slots.begin(), slots.end(), [&](int32_t a, int32_t b) { return positions[a] < positions[b]; });
    const std::vector<float> old_scores(scores, scores + entries);
    const std::vector<int32_t> old_positions(positions, positions + entries);
    for (size_t i = 0; i < entries; ++i) {
      const auto from = static_cast<size_t>(slots[i]);
      order.i32_row(g)[i] = slots[i];
      scores[i] = old_scores[from];
      positions[i] = old_positions[from];
    }
  }
}

void ReferenceBackend::write_turned(const TurnedRows& rows, const RopeSpec& spec) {
  RopeSpec turn = spec;
  turn.magnitude = 1;  // it was multiplied in when the keys were rotated first
  const std::vector<int32_t> deltas(static_cast<size_t>(rows.rows), rows.delta);
  std::vector<int32_t> positions(deltas.size());
  std::iota(positions.begin(), positions.end(), 0);
  const RowSpan span{.first_row = 0, .rows = rows.rows, .first_lane = 0};
  for (int32_t layer = 0; layer < rows.layers; ++layer) {
    const Lane* first = rows.kv.lanes + layer * rows.lanes_per_layer + rows.first_lane;
    std::vector<Lane> lanes(first, first + rows.kv_heads);
    for (Lane& lane : lanes) lane.write_slot = 0;
    KvView kv = rows.kv;
    kv.lanes = lanes.data();
    const int64_t at = int64_t{layer} * rows.rows;
    copy(rows.turned, rows.keys.slice_rows(at, rows.rows));
    rope(rows.turned, deltas.data(), turn);
    write_kv(rows.turned, rows.values.slice_rows(at, rows.rows), positions.data(), kv, {&span, 1}, rows.kv_heads);
  }
}

}  // namespace pkv
