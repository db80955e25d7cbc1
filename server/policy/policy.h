// What a cache policy is: data plus a few small functions. One file and one row of the registry per policy. The
// scheduler knows a policy as a Footprint only; the model and the cache do not know that policies exist.
//
// Symbols as in docs/policies.md: n prompt tokens, W observation window, B budget = average entries per layer and KV
// head, window included.
#pragma once

#include <cmath>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "server/cache/kv_cache.h"

namespace pkv {

enum class PolicyKind : uint8_t {
  kFull,
  kStreamingLlm,
  kH2o,
  kSnapKv,
  kPyramidKv,
  kL2Norm,
  kTova,
  kKeyDiff,
  kRandom,
};
enum class PyramidAllocation : uint8_t { kExact, kFactory };
enum class H2oScore : uint8_t { kSum, kMean };  // kMean: divided by the number of queries that could see the key
enum class PositionMode : uint8_t { kOriginal, kCacheRelative };
enum class BudgetKind : uint8_t { kNone, kTokens, kKeepRatio, kBytes, kMinRecall };  // kNone: everything (full)
enum class BudgetScope : uint8_t {
  kPrompt,  // cut once after the prompt; what is generated is appended
  kTotal,   // prompt and answer together stay within the budget
};

// Ratios are exact: limited to six decimals and held in millionths.
constexpr int64_t kMillion = 1'000'000;
// `value` in millionths. INVALID_ARGUMENT beginning with `field` where the value is not the number nearest to one of at
// most six decimals (or is not finite, or beyond 2^53 millionths).
absl::StatusOr<int64_t> to_millionths(double value, std::string_view field);

struct Budget {
  BudgetKind kind = BudgetKind::kNone;
  int64_t tokens = 0;                 // kTokens: B
  int64_t keep_ratio_millionths = 0;  // kKeepRatio: in (0, 1]
  uint64_t bytes = 0;                 // kBytes: allocated + auxiliary, at every instant
  int64_t min_recall_millionths = 0;  // kMinRecall: in (0, 1], of every lane
  uint64_t max_bytes = 0;             // kMinRecall: ceiling at every instant; 0: none
  bool allow_shortfall = false;       // kMinRecall: a lane that its share of the ceiling stops is served and reported
  BudgetScope scope = BudgetScope::kPrompt;
  int32_t interval_tokens = 64;  // kTotal: scores are refreshed every so many generated tokens
};

// Positions [begin, end) of the prompt that are never evicted.
struct TokenSpan {
  int32_t begin = 0;
  int32_t end = 0;
};

struct PolicyParams {
  int32_t window_tokens = 8;
  int32_t sink_tokens = 4;
  std::optional<int32_t> recent_tokens;  // h2o; unset: half the budget
  int32_t kernel_size = 7;
  PoolKind pooling = PoolKind::kMax;
  GroupReduce group_aggregation = GroupReduce::kMean;
  int64_t beta_millionths = 20 * kMillion;
  PyramidAllocation allocation = PyramidAllocation::kExact;
  H2oScore h2o_score = H2oScore::kSum;
  PositionMode position_mode = PositionMode::kOriginal;
  uint64_t seed = 0;
};

// What one request asks of its cache, every default filled in.
struct PolicySpec {
  PolicyKind kind = PolicyKind::kFull;
  PolicyParams params;
  Budget budget;
  std::vector<TokenSpan> pins;
  bool pin_system_message = false;  // asked for; its span is among the pins
  KvDtype kv_dtype = KvDtype::kF16;

  // Keys count as standing at their place in the cache, so positions end where the cache ends.
  bool cache_relative() const {
    return kind == PolicyKind::kStreamingLlm && params.position_mode == PositionMode::kCacheRelative;
  }
};

// One tunable of a policy, for people.
struct ParameterInfo {
  std::string_view name;  // as in the proto message
  std::string_view range;
  std::string_view default_value;
  std::string_view description;
};

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
  int32_t first_lane = 0;            // in `kv`: the sequence's lanes of this layer
  int32_t tokens = 0;                // n: entries of every lane; straight after a prompt slot == position
  TensorView observed_q;             // [observation rows, Hq * d]
  std::span<const int32_t> visible;  // [observation rows]
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

struct PolicyRow {
  PolicyKind kind;
  std::string_view name;  // as in the proto and on command lines
  std::string_view summary;
  std::string_view source;  // paper
  bool takes_budget;
  bool observes_attention;  // has a recall, and so may be asked for one
  std::span<const ParameterInfo> parameters;
  // INVALID_ARGUMENT, its message beginning with the offending field ("cache_policy.snapkv.kernel_size: must be odd").
  absl::Status (*validate)(const PolicySpec& spec);
  std::unique_ptr<CachePolicy> (*make)(const PolicySpec& spec);
};

std::span<const PolicyRow> policy_table();
const PolicyRow& policy_row(PolicyKind kind);
const PolicyRow* find_policy(std::string_view name);

// Validates the spec and makes the policy. Errors name the field, as PolicyRow::validate.
absl::StatusOr<std::unique_ptr<CachePolicy>> make_policy(const PolicySpec& spec);

}  // namespace pkv
