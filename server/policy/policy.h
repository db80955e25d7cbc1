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

// How entries are ranked once tokens are generated (scope TOTAL).
enum class DecodeScoring : uint8_t {
  kOnEntry,      // once, when the entry comes, by itself
  kEveryStep,    // by the attention of every new token, added up
  kAtIntervals,  // by score() again, over the newest W queries
};

// 1 / sqrt(d).
inline float attention_scale(int32_t head_dim) { return 1.0f / std::sqrt(static_cast<float>(head_dim)); }

// Everything about one layer of one sequence that a policy may score by, on the backend. Slots ascend by position.
struct LayerView {
  Backend* backend = nullptr;
  KvView kv;
  int32_t layer = 0;
  int32_t first_lane = 0;  // in `kv`: the sequence's lanes of this layer
  int32_t tokens = 0;      // n: entries of every lane; straight after a prompt slot == position
  TensorView observed_q;   // [observation rows, Hq * d]
  int32_t unseen = 0;      // newest slots that the first of these rows does not see, as ObserveArgs has it
  int32_t q_heads = 0;
  int32_t kv_heads = 0;
  float scale = 0;
};

// Tensors a policy scores into, owned by its caller and reused between layers.
struct ScoreBuffers {
  TensorView lse;         // [observation rows, Hq]
  TensorView sums;        // [Hq, n]; with Observation::kEveryRow in: the column sums
  TensorView mass;        // [Hkv, n] out, where attention is observed: unpooled scores, of which recall is a share
  TensorView scores;      // [Hkv, n] out: what the selection ranks; columns of the window may be left as they are
  TensorView lane_state;  // [Hkv, lane_state_floats()] out, where there is any
};

// A new token's entry in one lane, for policies that score it by itself.
struct NewEntry {
  std::span<const float> key;  // [d], rotated
  int32_t layer = 0;
  int32_t kv_head = 0;
  int32_t position = 0;
  std::span<float> lane_state;  // [lane_state_floats()] of this lane, in and out
};

class CachePolicy {
 public:
  virtual ~CachePolicy() = default;

  // Entries per lane of every layer for a text of `tokens`, always_kept(budget) < budget < tokens. The same everywhere
  // unless overridden. Known at admission, before a token is read.
  virtual std::vector<int32_t> layer_budgets(int32_t budget, int32_t tokens, int32_t layers) const;
  // Whether layer_budgets() adds up to layers x budget.
  virtual bool spends_exactly() const { return true; }
  // Keys count as standing at their place in the cache, so positions end where the cache ends.
  virtual bool cache_relative() const { return false; }
  // What validation, which knows no prompt, cannot judge yet. INVALID_ARGUMENT about the field (FieldError).
  virtual absl::Status check_budget(const Budget& /*budget*/) const { return absl::OkStatus(); }
  // First and newest entries of every lane that are always kept, the latter at an average budget of `budget`.
  virtual int32_t sink_tokens() const { return 0; }
  virtual int32_t window_tokens(int32_t budget) const = 0;

  virtual Observation observation() const { return Observation::kNothing; }
  // Observation::kRows only. Ascending.
  virtual std::vector<ObservationRow> observe(int32_t /*prompt_tokens*/) const { return {}; }
  // Fills `buffers`. Policies that score on entry or at every step score the window's columns too.
  virtual void score(const LayerView& layer, const ScoreBuffers& buffers) const = 0;

  // ---- scope TOTAL
  virtual DecodeScoring decode_scoring() const = 0;
  virtual int32_t lane_state_floats(int32_t /*head_dim*/) const { return 0; }
  // DecodeScoring::kOnEntry only.
  virtual float entry_score(const NewEntry& entry) const;
  // What entries are compared by: their score, or what `queries`, the number of queries that could see the entry, makes
  // of it.
  virtual float decode_rank(float score, int32_t /*queries*/) const { return score; }
};

// Whether recall is known.
inline bool observes_attention(const CachePolicy& policy) {
  return policy.observation() == Observation::kRows || policy.observation() == Observation::kEveryRow;
}

}  // namespace pkv
