// Which entries of a scored layer are kept, as operations on its lanes together. The host learns how many a lane keeps
// where it does not know already; which ones only where all layers share a budget (read_scores).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "server/policy/cache_plan.h"
#include "server/policy/compressor_scratch.h"
#include "server/policy/policy.h"

namespace pkv {

struct SelectionInput {
  Backend& backend;
  const CachePlan& plan;
  const Budget& budget;
  std::span<const int32_t> budgets;  // [kv_heads] entries; at most, where data decides
  int32_t layer = 0;
  int32_t tokens = 0;                // n: entries of every lane
  const CompressorScratch& scratch;  // mass and scores [kv_heads, n]; the scores of what is always kept are overwritten
  TensorView recalls;  // [1, kv_heads] f64 out: the kept share of scratch.mass; no data: nothing was observed
};

// Entries that every lane keeps [kv_heads]; which, ascending, in scratch.kept and again how many in scratch.counts:
// window, sinks and pins, and of the others those with the best scores, equals by position. As many as
//   - the lane's budget says, or
//   - the lane has among the best of its layer, where the lanes of the layer share (CachePlan::shares()), or
//   - the recall asked for needs (min_recall): FAILED_PRECONDITION (recall_shortfall()) where a lane's budget is not
//     enough for it and no shortfall is allowed.
absl::StatusOr<std::vector<int32_t>> select_entries(const SelectionInput& input);

// Scores, those of sinks and pins +infinity, and masses [kv_heads][n] of a layer, for the host.
struct LayerScores {
  std::vector<float> scores;
  std::vector<float> mass;
};
absl::StatusOr<LayerScores> read_scores(const SelectionInput& input);

// The same of a layer without scores that keeps everything.
void select_everything(const SelectionInput& input);

}  // namespace pkv
