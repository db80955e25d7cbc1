// funnel: per lane the entries that the newest queries, and queries of the whole prompt turned to positions behind it,
// attend to and whose values weigh much in the layer's output; lane budgets from a table of the model
// (docs/policies.md).
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"
#include "kernels/status_macros.h"
#include "server/policy/budget.h"
#include "server/policy/builtin.h"
#include "server/policy/lane_table.h"
#include "server/policy/observed_attention.h"
#include "server/policy/pyramid.h"
#include "server/status/field_error.h"

namespace pkv {
namespace {

// Of the newest W rows those that score beside turned ones: a wider window dilutes a short question.
constexpr int32_t kScoringRows = 8;
constexpr int32_t kPoolingWidth = 5;
constexpr int32_t kGuaranteedPart = 5;
// Turned rows stand at the next so many positions behind the prompt, spread by a factor prime to it.
constexpr int32_t kTurnedPositions = 64;
constexpr int32_t kTurnedStep = 37;
// Rows at a prompt's beginning have seen too little to stand for what may be asked.
constexpr int32_t kFirstObservedRow = 64;

class FunnelPolicy : public CachePolicy {
 public:
  explicit FunnelPolicy(const PolicySpec& spec) : params_(spec.params), table_(spec.lane_table) {}

  std::vector<int32_t> lane_budgets(int32_t budget, int32_t tokens, const LaneGrid& grid) const override {
    return table_lane_budgets(*table_, budget, tokens, always_kept(), grid);
  }
  // GLOBAL: a fifth of what a pyramid would give the layer beside window and sinks.
  std::vector<int32_t> shared_floors(int32_t budget, int32_t tokens, const LaneGrid& grid) const override {
    if (!global()) return {};
    std::vector<int32_t> floors = exact_pyramid({.tokens = tokens,
                                                 .budget = budget,
                                                 .window = always_kept(),
                                                 .layers = grid.layers,
                                                 .beta_millionths = params_.beta_millionths});
    for (int32_t& floor : floors) floor = always_kept() + (floor - always_kept()) / kGuaranteedPart;
    return floors;
  }
  bool front_loaded() const override { return false; }

  int32_t sink_tokens() const override { return params_.sink_tokens; }
  int32_t window_tokens(int32_t /*budget*/) const override { return params_.window_tokens; }
  Observation observation() const override { return Observation::kRows; }
  bool weighs_values() const override { return true; }
  bool refits_values() const override { return params_.refit_values; }
  // Rows over the whole prompt, turned to the positions behind it, and then the newest W as they are.
  std::vector<ObservationRow> observe(int32_t prompt_tokens) const override {
    const int32_t count = std::max(0, std::min(params_.observed_rows, prompt_tokens - kFirstObservedRow));
    const int32_t first = std::min(kFirstObservedRow, prompt_tokens / 4);
    std::vector<ObservationRow> rows;
    for (int64_t k = 0; k < count; ++k) {
      const int64_t behind = count > 1 ? k * (prompt_tokens - 1 - first) / (count - 1) : 0;
      rows.push_back({.prompt_row = first + static_cast<int32_t>(behind),
                      .position = prompt_tokens + static_cast<int32_t>(kTurnedStep * k % kTurnedPositions)});
    }
    for (int32_t row = std::max(0, prompt_tokens - params_.window_tokens); row < prompt_tokens; ++row) {
      rows.push_back({.prompt_row = row, .position = row});
    }
    return rows;
  }
  // mass[g, j]: the scoring rows' attention to slot j, summed over rows, averaged over the group's query heads.
  // scores[g, j], j < n - W: of the turned rows and of the newest, each the root mean square over rows and query heads
  // of attention times |v_j W_o|, pooled and (TABLE) divided by its mean: the larger of the two.
  void score(const LayerView& layer, const ScoreBuffers& buffers, ScoreSteps& steps) const override {
    const int32_t past = layer.tokens - params_.window_tokens;
    steps.add(layer.entries_work(), [buffers](const LayerView& now) { now.backend->fill(buffers.sums, 0); });
    add_value_norms(layer, buffers.value_norms, steps);
    // Lanes are compared with each other by raw scores, of all rows.
    const bool narrow = layer.observed.size() > 1 && !global();
    for (size_t set = 0; set < layer.observed.size(); ++set) {
      const ObservedRows rows =
          narrow && !layer.observed[set].turned ? newest_rows(layer.observed[set], kScoringRows) : layer.observed[set];
      steps.add(layer.entries_work(), [buffers](const LayerView& now) { now.backend->fill(buffers.squares, 0); });
      add_observed_squares(layer, rows, buffers, steps);
      const float mean = 1.0f / static_cast<float>(rows.q.rows * (layer.q_heads / layer.kv_heads));
      steps.add(layer.entries_work(), [this, buffers, set, mean, past](const LayerView& now) {
        now.backend->weigh_groups(buffers.squares, buffers.value_norms, mean, buffers.mass);
        if (past > 0) pool_set(*now.backend, set, past, buffers);
      });
    }
    steps.add(layer.entries_work(), [buffers](const LayerView& now) {
      now.backend->reduce_groups(buffers.sums, GroupReduce::kMean, buffers.mass);
    });
  }
  DecodeRule decode_rule() const override { return {}; }

 private:
  int32_t always_kept() const { return params_.window_tokens + params_.sink_tokens; }
  bool global() const { return params_.funnel_allocation == FunnelAllocation::kGlobal; }
  // buffers.mass of a set of rows joins the scores of those before.
  void pool_set(Backend& backend, size_t set, int32_t past, const ScoreBuffers& buffers) const {
    const TensorView pooled = (set == 0 ? buffers.scores : buffers.other_scores).slice_cols(0, past);
    backend.pool_scores(buffers.mass.slice_cols(0, past), PoolKind::kMax, kPoolingWidth, pooled);
    if (set > 0) backend.merge_scores(pooled, !global(), buffers.scores.slice_cols(0, past));
  }
  // |v_j W_o|, KV head by KV head.
  static void add_value_norms(const LayerView& layer, const TensorView& norms, ScoreSteps& steps) {
    const int64_t group = layer.q_heads / layer.kv_heads, d = layer.kv.head_dim;
    for (int32_t head = 0; head < layer.kv_heads; ++head) {
      steps.add(layer.tokens * group * d * d / 2, [norms, group, d, head](const LayerView& now) {
        now.backend->value_norms(now.kv, now.first_lane + head, 1,
                                 now.value_factors.slice_rows(head * group * d, group * d),
                                 norms.slice_rows(head * group, group));
      });
    }
  }
  static ObservedRows newest_rows(const ObservedRows& rows, int32_t count) {
    const auto skipped = static_cast<int32_t>(std::max<int64_t>(0, rows.q.rows - count));
    return {.q = rows.q.slice_rows(skipped, rows.q.rows - skipped), .unseen = std::max(0, rows.unseen - skipped)};
  }

  PolicyParams params_;
  std::shared_ptr<const LaneTable> table_;
};

absl::Status refusal(std::string_view field, std::string_view reason) {
  return field_error("cache_policy.funnel." + std::string(field), std::string(reason));
}

}  // namespace

absl::Status validate_funnel(const PolicySpec& spec) {
  PKV_RETURN_IF_ERROR(validate_observed("funnel", "window_tokens", spec.params.window_tokens));
  PKV_RETURN_IF_ERROR(validate_sinks("funnel", spec.params));
  PKV_RETURN_IF_ERROR(validate_observed("funnel", "observed_rows", spec.params.observed_rows));
  if (spec.params.refit_values && spec.params.funnel_allocation == FunnelAllocation::kGlobal) {
    return refusal("refit_values",
                   "needs allocation TABLE: with GLOBAL a lane's entries are known only when all layers are cut and "
                   "their values are rounded; leave it out, or take TABLE where the server has the model's lane table");
  }
  if (spec.params.funnel_allocation == FunnelAllocation::kTable && spec.lane_table == nullptr) {
    return refusal(
        "allocation",
        "TABLE needs the model's lane table, which this server has not: make one with pkv-calibrate and name "
        "it in model.lane_table, or take GLOBAL");
  }
  return validate_budget(spec, int64_t{spec.params.window_tokens} + spec.params.sink_tokens);
}

std::unique_ptr<CachePolicy> make_funnel(const PolicySpec& spec) { return std::make_unique<FunnelPolicy>(spec); }

}  // namespace pkv
