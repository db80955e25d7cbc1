// What a cache policy is: a few small functions over what a layer holds. The scheduler knows a policy as pages and
// bytes only; the model and the cache do not know that policies exist.
#pragma once

#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "kernels/backend.h"
#include "server/policy/policy_spec.h"
#include "server/policy/score_steps.h"

namespace pkv {

// What a policy wants to see of a prompt while a layer is prefilled. Only what is asked for is paid.
enum class Observation : uint8_t {
  kNothing,
  kRows,      // the queries of some rows, once the layer has seen the whole prompt
  kEveryRow,  // the attention of every row, chunk by chunk
  kKeys,      // the stored keys
};

// A row to observe, and the position its query is turned to.
struct ObservationRow {
  int32_t prompt_row = 0;
  int32_t position = 0;  // == prompt_row: the query stays as it is
};

// How entries are ranked once tokens are generated (scope TOTAL): what the backend scores and ranks them by
// (kernels/eviction.h).
struct DecodeRule {
  // When entries get their scores.
  enum class Scoring : uint8_t {
    kOnEntry,      // once, when the entry comes, by itself
    kEveryStep,    // by the attention of every new token, added up
    kAtIntervals,  // by CachePolicy::score() again, over the newest W queries
  };

  NewEntryScore new_score = NewEntryScore::kUnscored;
  EntryRank rank = EntryRank::kScore;
  uint64_t seed = 0;  // NewEntryScore::kHash

  Scoring scoring() const;  // follows from new_score
};

// 1 / sqrt(d).
inline float attention_scale(int32_t head_dim) { return 1.0f / std::sqrt(static_cast<float>(head_dim)); }

// Observed queries [rows, Hq * d] that follow each other: row r sees all entries but the newest max(0, unseen - r).
struct ObservedRows {
  TensorView q;
  int32_t unseen = 0;
  bool turned = false;  // to other positions than their own
};

// Everything about one layer of one sequence that a policy may score by, on the backend. Slots ascend by position.
struct LayerView {
  Backend* backend = nullptr;
  KvView kv;
  int32_t layer = 0;
  int32_t first_lane = 0;  // in `kv`: the sequence's lanes of this layer
  int32_t tokens = 0;      // n: entries of every lane; straight after a prompt slot == position
  std::span<const ObservedRows> observed;
  TensorView value_factors;  // [Hq * d, d]: Model::value_factors() of the layer's heads, for policies that weigh values
  int32_t q_heads = 0;
  int32_t kv_heads = 0;
  float scale = 0;

  // Multiply-adds of one query row and one entry in all query heads, twice: queries by keys and weights by values, or
  // the two passes of an observation.
  int64_t pair_work() const { return int64_t{2} * q_heads * kv.head_dim; }
  // Of operations that touch every entry a few times.
  int64_t entries_work() const { return int64_t{16} * q_heads * tokens; }
};

// Tensors a policy scores into, owned by its caller and reused between layers.
struct ScoreBuffers {
  TensorView lse;           // [observation rows, Hq]
  TensorView sums;          // [Hq, n]; with Observation::kEveryRow in: the column sums
  TensorView mass;          // [Hkv, n] out, where attention is observed: unpooled scores, of which recall is a share
  TensorView scores;        // [Hkv, n] out: what the selection ranks; columns of the window may be left as they are
  TensorView squares;       // [Hq, n] scratch: column sums of squares
  TensorView value_norms;   // [Hq, n] scratch
  TensorView other_scores;  // [Hkv, n] scratch: of a second set of rows
  TensorView lane_state;    // [Hkv, lane_state_floats()] out, where there is any
};

// The lanes that a budget is divided among.
struct LaneGrid {
  int32_t layers = 0;
  int32_t kv_heads = 0;

  size_t lanes() const { return static_cast<size_t>(layers) * static_cast<size_t>(kv_heads); }
};

// A layer's part of a budget that its lanes share by their scores.
struct LayerTotal {
  int64_t entries = 0;        // of all its lanes together
  int32_t smallest_lane = 0;  // of every lane at least; raised to what is always kept, cut to an equal part
  int32_t largest_lane = 0;   // of one lane at most; raised to what the entries need
};

class CachePolicy {
 public:
  virtual ~CachePolicy() = default;

  // ---- How a budget of B entries per lane on average is divided, for a text of `tokens`, always_kept(B) < B < tokens.
  // Known at admission, before a token is read. The same for every lane unless one of these is overridden; the plan
  // raises what is below the entries that are always kept, and cuts what is above `tokens`.
  // Entries per lane of every layer.
  virtual std::vector<int32_t> layer_budgets(int32_t budget, int32_t tokens, int32_t layers) const;
  // [layers * kv_heads] entries of every lane; layer_budgets() unless overridden.
  virtual std::vector<int32_t> lane_budgets(int32_t budget, int32_t tokens, const LaneGrid& grid) const;
  // Instead of lane_budgets(), [layers]: the lanes of a layer share its entries, the best scores of all of them are
  // kept. Empty: they do not.
  virtual std::vector<LayerTotal> layer_totals(int32_t budget, int32_t tokens, const LaneGrid& grid) const;
  // Instead of both, [layers]: the lanes of all layers share B times the lanes, the best scores of all of them are
  // kept, and beside what others have every lane of a layer has so many. Empty: they do not.
  virtual std::vector<int32_t> shared_floors(int32_t budget, int32_t tokens, const LaneGrid& grid) const;
  // Whether they add up to B times the lanes. Otherwise it is more, and no layer lends to another.
  virtual bool spends_exactly() const { return true; }
  // Whether the lanes of a layer are alike, no layer has fewer entries than the one above it, and none fewer where B is
  // larger, but for rounding by an entry. A policy of another shape has to say so: budgets in bytes are searched for
  // one by one then.
  virtual bool front_loaded() const { return true; }

  // Keys count as standing at their place in the cache, so positions end where the cache ends. The lanes are alike.
  virtual bool cache_relative() const { return false; }
  // What validation, which knows no prompt, cannot judge yet. INVALID_ARGUMENT about the field (FieldError).
  virtual absl::Status check_budget(const Budget& /*budget*/) const { return absl::OkStatus(); }
  // First and newest entries of every lane that are always kept, the latter at an average budget of `budget`.
  virtual int32_t sink_tokens() const { return 0; }
  virtual int32_t window_tokens(int32_t budget) const = 0;

  virtual Observation observation() const { return Observation::kNothing; }
  // Observation::kRows only: rows that are turned, ascending, and then those that are not, ascending.
  virtual std::vector<ObservationRow> observe(int32_t /*prompt_tokens*/) const { return {}; }
  // Whether score() needs LayerView::value_factors.
  virtual bool weighs_values() const { return false; }
  // Whether kept values are fitted to what the observed rows got from the whole lane (ValueRefit).
  virtual bool refits_values() const { return false; }
  // Lists the steps that fill `buffers`. Policies that score on entry or at every step score the window's columns too.
  virtual void score(const LayerView& layer, const ScoreBuffers& buffers, ScoreSteps& steps) const = 0;

  // ---- scope TOTAL
  virtual DecodeRule decode_rule() const = 0;
  // Numbers that are kept of every lane to score new entries by: NewEntryScore::kKeySimilarity only.
  virtual int32_t lane_state_floats(int32_t /*head_dim*/) const { return 0; }
};

// All steps of CachePolicy::score() at once.
void score_now(const CachePolicy& policy, const LayerView& layer, const ScoreBuffers& buffers);

// Whether recall is known.
inline bool observes_attention(const CachePolicy& policy) {
  return policy.observation() == Observation::kRows || policy.observation() == Observation::kEveryRow;
}

}  // namespace pkv
