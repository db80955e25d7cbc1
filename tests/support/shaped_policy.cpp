// Random shares of a budget, the same for the same grid, before any policy.
#include "tests/support/shaped_policy.h"

#include <numeric>
#include <random>
#include <utility>
#include <vector>

#include "kernels/status_macros.h"
#include "server/policy/budget.h"

namespace pkv::test {
namespace {

class ShapedPolicy final : public CachePolicy {
 public:
  ShapedPolicy(std::unique_ptr<CachePolicy> scores, LaneShape shape) : scores_(std::move(scores)), shape_(shape) {}

  std::vector<int32_t> lane_budgets(int32_t budget, int32_t /*tokens*/, const LaneGrid& grid) const override {
    std::vector<int32_t> lanes;
    for (const int64_t entries : shares(budget, grid.lanes(), int64_t{budget} * static_cast<int64_t>(grid.lanes()))) {
      lanes.push_back(static_cast<int32_t>(entries));
    }
    return lanes;
  }
  std::vector<LayerTotal> layer_totals(int32_t budget, int32_t tokens, const LaneGrid& grid) const override {
    if (shape_ != LaneShape::kTotals) return {};
    std::vector<LayerTotal> totals;
    std::mt19937 random(17);
    for (const int64_t entries :
         shares(budget, static_cast<size_t>(grid.layers), int64_t{budget} * static_cast<int64_t>(grid.lanes()))) {
      const auto most = static_cast<int32_t>(entries / grid.kv_heads * static_cast<int64_t>(1 + random() % 3));
      totals.push_back({.entries = entries, .largest_lane = random() % 3 == 0 ? tokens : most});
    }
    return totals;
  }
  bool front_loaded() const override { return false; }

  absl::Status check_budget(const Budget& budget) const override { return scores_->check_budget(budget); }
  int32_t sink_tokens() const override { return scores_->sink_tokens(); }
  int32_t window_tokens(int32_t budget) const override { return scores_->window_tokens(budget); }
  Observation observation() const override { return scores_->observation(); }
  std::vector<ObservationRow> observe(int32_t prompt_tokens) const override { return scores_->observe(prompt_tokens); }
  bool weighs_values() const override { return scores_->weighs_values(); }
  bool refits_values() const override { return scores_->refits_values(); }
  void score(const LayerView& layer, const ScoreBuffers& buffers, ScoreSteps& steps) const override {
    scores_->score(layer, buffers, steps);
  }
  DecodeRule decode_rule() const override { return scores_->decode_rule(); }
  int32_t lane_state_floats(int32_t head_dim) const override { return scores_->lane_state_floats(head_dim); }

 private:
  // `count` random parts of `sum`: a quarter of them nothing, the largest some fifty times the smallest.
  std::vector<int64_t> shares(int32_t budget, size_t count, int64_t sum) const {
    std::mt19937 random(shape_ == LaneShape::kJumping ? static_cast<uint32_t>(budget) : 5);
    std::vector<__int128> numerators;
    int64_t weights = 0;
    for (size_t i = 0; i < count; ++i) {
      const auto weight = static_cast<int64_t>(random() % 4 == 0 && i + 1 < count ? 0 : 1 + random() % 50);
      numerators.push_back(static_cast<__int128>(weight) * sum);
      weights += weight;
    }
    return round_to_sum(numerators, weights, sum);
  }

  std::unique_ptr<CachePolicy> scores_;
  LaneShape shape_;
};

}  // namespace

std::string name_of(LaneShape shape) {
  constexpr const char* kNames[] = {"Own", "Lanes", "Jumping", "Totals"};
  return kNames[static_cast<size_t>(shape)];
}

absl::StatusOr<std::unique_ptr<CachePolicy>> make_shaped_policy(const PolicySpec& spec, LaneShape shape) {
  PKV_ASSIGN_OR_RETURN(std::unique_ptr<CachePolicy> policy, make_policy(spec));
  if (shape == LaneShape::kOwn || !policy_row(spec.kind).takes_budget || policy->cache_relative()) return policy;
  return std::make_unique<ShapedPolicy>(std::move(policy), shape);
}

PolicyMaker shaped_policies(LaneShape shape) {
  return [shape](const PolicySpec& spec) { return make_shaped_policy(spec, shape); };
}

}  // namespace pkv::test
