// The window score of the SnapKV family, as a sequence of backend operations.
#include "server/policy/window_score.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "server/policy/budget.h"

namespace pkv {
namespace {

void set_zero(Backend& backend, const TensorView& view) {
  const std::vector<float> zeros(static_cast<size_t>(view.cols), 0.0f);
  for (int64_t row = 0; row < view.rows; ++row) backend.upload(view.slice_rows(row, 1), zeros.data());
  backend.sync();  // `zeros` goes out of scope
}

}  // namespace

absl::Status validate_window_policy(std::string_view policy, const PolicySpec& spec) {
  const PolicyParams& params = spec.params;
  const std::string prefix = "cache_policy." + std::string(policy);
  if (params.window_tokens < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat(prefix, ".window_tokens: must be at least 1, got ", params.window_tokens));
  }
  if (params.kernel_size < 1 || params.kernel_size % 2 == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(prefix, ".kernel_size: must be odd and at least 1, got ", params.kernel_size));
  }
  return validate_budget(spec.budget, params.window_tokens);
}

int32_t WindowScorePolicy::budget_tokens(int32_t prompt_tokens) const {
  const int64_t budget = resolve_budget(budget_, prompt_tokens, params_.window_tokens);
  return static_cast<int32_t>(std::min<int64_t>(budget, prompt_tokens));
}

std::vector<ObservationRow> WindowScorePolicy::observe(int32_t prompt_tokens) const {
  std::vector<ObservationRow> rows;
  for (int32_t row = std::max(0, prompt_tokens - params_.window_tokens); row < prompt_tokens; ++row) {
    rows.push_back({.prompt_row = row, .position = row});
  }
  return rows;
}

void WindowScorePolicy::score(const LayerView& layer, const ScoreBuffers& buffers) const {
  Backend& backend = *layer.backend;
  const ObserveArgs observed{.q = layer.observed_q,
                             .visible = layer.visible,
                             .kv = layer.kv,
                             .first_lane = layer.first_lane,
                             .q_heads = layer.q_heads,
                             .kv_heads = layer.kv_heads,
                             .scale = layer.scale};
  set_zero(backend, buffers.sums);
  backend.row_lse(observed, buffers.lse);
  backend.column_mass(observed, buffers.lse, buffers.sums, TensorView{});

  // Recall is a share of the group's mean whatever is ranked by, so `mass` holds the other reduction only until it is
  // pooled.
  const int64_t past = layer.prompt_tokens - params_.window_tokens;
  backend.reduce_groups(buffers.sums, params_.group_aggregation, buffers.mass);
  backend.pool_scores(buffers.mass.slice_cols(0, past), params_.pooling, params_.kernel_size,
                      buffers.scores.slice_cols(0, past));
  if (params_.group_aggregation != GroupReduce::kMean) {
    backend.reduce_groups(buffers.sums, GroupReduce::kMean, buffers.mass);
  }
}

}  // namespace pkv
