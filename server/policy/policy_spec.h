// What one request asks of its cache, as plain values: which policy, its parameters, the budget, the pins.
//
// Symbols as in docs/policies.md: n prompt tokens, W observation window, B budget = average entries per layer and KV
// head, window included.
#pragma once

#include <cmath>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "kernels/backend.h"

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
  kAdaSnapKv,
  kAdaPyramidKv,
  kFunnel,
};
enum class PyramidAllocation : uint8_t { kExact, kFactory };
enum class FunnelAllocation : uint8_t { kTable, kGlobal };  // budgets of lanes: the model's table; all scores together
enum class H2oScore : uint8_t { kSum, kMean };  // kMean: divided by the number of queries that could see the key
enum class PositionMode : uint8_t { kOriginal, kCacheRelative };
enum class BudgetKind : uint8_t { kNone, kTokens, kKeepRatio, kBytes, kMinRecall };  // kNone: everything (full)
enum class BudgetScope : uint8_t {
  kPrompt,  // cut once after the prompt; what is generated is appended
  kTotal,   // prompt and answer together stay within the budget
};

// Ratios are rounded to six decimals where they come in and held in millionths.
constexpr int64_t kMillion = 1'000'000;
// The nearest number of millionths; |value| < 9e12.
inline int64_t to_millionths(double value) { return std::llround(value * static_cast<double>(kMillion)); }

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

// How a prompt's rows attend to each other while it is read.
enum class PrefillAttention : uint8_t { kDense, kVerticalSlash };

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
  int64_t floor_millionths = kMillion / 5;  // ada_*: of the average head beside the window, for every head
  PyramidAllocation allocation = PyramidAllocation::kExact;
  H2oScore h2o_score = H2oScore::kSum;
  PositionMode position_mode = PositionMode::kOriginal;
  uint64_t seed = 0;
  int32_t observed_rows = 256;  // funnel
  FunnelAllocation funnel_allocation = FunnelAllocation::kTable;
  bool refit_values = false;  // funnel
};

struct LaneTable;

// What one request asks of its cache, every default filled in.
struct PolicySpec {
  PolicyKind kind = PolicyKind::kFull;
  PolicyParams params;
  Budget budget;
  std::vector<TokenSpan> pins;
  bool pin_system_message = false;  // asked for; its span is among the pins
  KvDtype kv_dtype = KvDtype::kF16;
  PrefillAttention prefill = PrefillAttention::kDense;
  // kVerticalSlash: entries that a row attends to about, beside the first and its neighbours.
  int32_t prefill_tokens = 2048;
  std::shared_ptr<const LaneTable> lane_table;  // of the served model; nullptr: there is none
};

}  // namespace pkv
