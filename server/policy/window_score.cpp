// The window score of the SnapKV family, as a sequence of backend operations.
#include "server/policy/window_score.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "server/policy/budget.h"
#include "server/policy/fill.h"

namespace pkv {

absl::Status validate_window_policy(std::string_view policy, const PolicySpec& spec) {
  if (absl::Status status = validate_window(policy, spec.params); !status.ok()) return status;
  if (spec.params.kernel_size < 1 || spec.params.kernel_size % 2 == 0) {
    return absl::InvalidArgumentError(absl::StrCat("cache_policy.", std::string(policy),
                                                   ".kernel_size: must be odd and at least 1, got ",
                                                   spec.params.kernel_size));
  }
  return validate_budget(spec, spec.params.window_tokens);
}

void sum_observed_attention(const LayerView& layer, const ScoreBuffers& buffers) {
  const ObserveArgs observed{.q = layer.observed_q,
                             .visible = layer.visible,
                             .kv = layer.kv,
                             .first_lane = layer.first_lane,
                             .q_heads = layer.q_heads,
                             .kv_heads = layer.kv_heads,
                             .scale = layer.scale};
  fill(*layer.backend, buffers.sums, 0.0f);
  layer.backend->row_lse(observed, buffers.lse);
  layer.backend->column_mass(observed, buffers.lse, buffers.sums, TensorView{});
}

std::vector<ObservationRow> WindowScorePolicy::observe(int32_t prompt_tokens) const {
  std::vector<ObservationRow> rows;
  for (int32_t row = std::max(0, prompt_tokens - params_.window_tokens); row < prompt_tokens; ++row) {
    rows.push_back({.prompt_row = row, .position = row});
  }
  return rows;
}

void WindowScorePolicy::score(const LayerView& layer, const ScoreBuffers& buffers) const {
  sum_observed_attention(layer, buffers);
  Backend& backend = *layer.backend;
  // Recall is a share of the group's mean whatever is ranked by, so `mass` holds the other reduction only until it is
  // pooled.
  backend.reduce_groups(buffers.sums, params_.group_aggregation, buffers.mass);
  if (const int64_t past = layer.tokens - params_.window_tokens; past > 0) {
    backend.pool_scores(buffers.mass.slice_cols(0, past), params_.pooling, params_.kernel_size,
                        buffers.scores.slice_cols(0, past));
  }
  if (params_.group_aggregation != GroupReduce::kMean) {
    backend.reduce_groups(buffers.sums, GroupReduce::kMean, buffers.mass);
  }
}

}  // namespace pkv
