// What a cache policy is: data plus a few small functions. One file and one row of the registry per policy. The
// scheduler knows a policy as a Footprint only; the model and the cache do not know that policies exist.
//
// Symbols as in docs/policies.md: n prompt tokens, W observation window, B budget = average entries per layer and KV
// head, window included.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "server/cache/kv_cache.h"

namespace pkv {

enum class PolicyKind : uint8_t { kFull, kSnapKv, kPyramidKv };
enum class PyramidAllocation : uint8_t { kExact, kFactory };
enum class BudgetKind : uint8_t { kNone, kTokens, kKeepRatio };  // kNone: everything (full)

// Ratios are exact: limited to six decimals and held in millionths.
constexpr int64_t kMillion = 1'000'000;
// `value` in millionths. INVALID_ARGUMENT beginning with `field` where the value is not the number nearest to one of at
// most six decimals (or is not finite, or beyond 2^53 millionths).
absl::StatusOr<int64_t> to_millionths(double value, std::string_view field);

struct Budget {
  BudgetKind kind = BudgetKind::kNone;
  int64_t tokens = 0;                 // kTokens: B
  int64_t keep_ratio_millionths = 0;  // kKeepRatio: in (0, 1]
};

struct PolicyParams {
  int32_t window_tokens = 8;
  int32_t kernel_size = 7;
  PoolKind pooling = PoolKind::kMax;
  GroupReduce group_aggregation = GroupReduce::kMean;
  int64_t beta_millionths = 20 * kMillion;
  PyramidAllocation allocation = PyramidAllocation::kExact;
};

// What one request asks of its cache, every default filled in.
struct PolicySpec {
  PolicyKind kind = PolicyKind::kFull;
  PolicyParams params;
  Budget budget;
  KvDtype kv_dtype = KvDtype::kF16;
};

// One tunable of a policy, for people.
struct ParameterInfo {
  std::string_view name;  // as in the proto message
  std::string_view range;
  std::string_view default_value;
  std::string_view description;
};

// What a policy wants to see of the prompt's attention while a layer is prefilled: rows, and the position each row's
// query is turned to. Empty: nothing, and nothing is paid.
struct ObservationRow {
  int32_t prompt_row = 0;
  int32_t position = 0;  // == prompt_row: the query stays as it is
};

// Everything about one layer of one prompt that a policy may score by, on the backend.
struct LayerView {
  Backend* backend = nullptr;
  KvView kv;
  int32_t first_lane = 0;            // the sequence's lanes of this layer
  int32_t prompt_tokens = 0;         // n: entries of every lane, slot == position
  TensorView observed_q;             // [observation rows, Hq * d]
  std::span<const int32_t> visible;  // [observation rows]
  int32_t q_heads = 0;
  int32_t kv_heads = 0;
  float scale = 0;
};

// Tensors a policy scores into, owned by the compressor and reused between layers.
struct ScoreBuffers {
  TensorView lse;     // [observation rows, Hq]
  TensorView sums;    // [Hq, n]
  TensorView mass;    // [Hkv, n] out: unpooled scores of every column, of which recall is a share
  TensorView scores;  // [Hkv, n] out: what the selection ranks, columns [0, n - window); the rest is not read
};

class CachePolicy {
 public:
  virtual ~CachePolicy() = default;

  // Entries every lane keeps from the cut on, [layers * kv_heads], each in [1, n]. Known at admission, before a token
  // is read.
  virtual std::vector<int32_t> lane_budgets(int32_t prompt_tokens, const CacheGeometry& geometry) const = 0;
  // B as resolved for this prompt; n where everything is kept.
  virtual int32_t budget_tokens(int32_t prompt_tokens) const = 0;
  // Newest entries of every lane that are always kept.
  virtual int32_t window_tokens() const = 0;
  virtual std::vector<ObservationRow> observe(int32_t prompt_tokens) const = 0;
  // Fills buffers.mass for all columns and buffers.scores for those outside the window. Called only where something is
  // cut and observe() is not empty.
  virtual void score(const LayerView& layer, const ScoreBuffers& buffers) const = 0;
};

struct PolicyRow {
  PolicyKind kind;
  std::string_view name;  // as in the proto and on command lines
  std::string_view summary;
  std::string_view source;  // paper
  bool takes_budget;
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
