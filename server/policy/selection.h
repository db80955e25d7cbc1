// Which entries of a scored layer are kept.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "server/policy/cache_plan.h"
#include "server/policy/compressor_scratch.h"
#include "server/policy/policy.h"

namespace pkv {

// What every lane of a layer keeps, ascending, and the share of its observed attention that this carries.
struct Selection {
  std::vector<std::vector<int32_t>> kept;  // [kv_heads]
  std::vector<double> recall;              // [kv_heads]; empty: nothing was observed
};

struct SelectionInput {
  Backend& backend;
  const CachePlan& plan;
  const Budget& budget;
  std::span<const int32_t> budgets;  // [kv_heads] entries at most
  int32_t layer = 0;
  int32_t tokens = 0;                // n: entries of every lane
  bool recall_known = false;         // scratch.mass is filled
  const CompressorScratch& scratch;  // mass and scores [kv_heads, n]; the scores of what is always kept are overwritten
};

Selection keep_everything(int32_t tokens, size_t kv_heads, bool recall_known);
// Every lane its budget: window, sinks and pins, and of the others those with the best scores, equals by position.
Selection select_best(const SelectionInput& input);
// Every lane what is always kept and, in the order of the scores, as few others as carry the recall asked for.
// FAILED_PRECONDITION (recall_shortfall()) where a lane's budget is not enough for that and no shortfall is allowed.
absl::StatusOr<Selection> select_by_recall(const SelectionInput& input);

}  // namespace pkv
