// What a cache policy does unless it says otherwise.
#include "server/policy/policy.h"

#include <limits>

namespace pkv {

void score_now(const CachePolicy& policy, const LayerView& layer, const ScoreBuffers& buffers) {
  ScoreSteps steps(std::numeric_limits<int64_t>::max());
  for (policy.score(layer, buffers, steps); !steps.done();) steps.run_next(layer);
}

DecodeRule::Scoring DecodeRule::scoring() const {
  switch (new_score) {
    case NewEntryScore::kUnscored:
      return Scoring::kAtIntervals;
    case NewEntryScore::kZero:
      return Scoring::kEveryStep;
    case NewEntryScore::kPosition:
    case NewEntryScore::kHash:
    case NewEntryScore::kKeyNorm:
    case NewEntryScore::kKeySimilarity:
      break;
  }
  return Scoring::kOnEntry;
}

std::vector<int32_t> CachePolicy::layer_budgets(int32_t budget, int32_t /*tokens*/, int32_t layers) const {
  return std::vector<int32_t>(static_cast<size_t>(layers), budget);
}

std::vector<int32_t> CachePolicy::lane_budgets(int32_t budget, int32_t tokens, const LaneGrid& grid) const {
  std::vector<int32_t> lanes;
  for (const int32_t entries : layer_budgets(budget, tokens, grid.layers)) {
    lanes.insert(lanes.end(), static_cast<size_t>(grid.kv_heads), entries);
  }
  return lanes;
}

std::vector<LayerTotal> CachePolicy::layer_totals(int32_t /*budget*/, int32_t /*tokens*/, const LaneGrid&) const {
  return {};
}

std::vector<int32_t> CachePolicy::shared_floors(int32_t /*budget*/, int32_t /*tokens*/, const LaneGrid&) const {
  return {};
}

}  // namespace pkv
