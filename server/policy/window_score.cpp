// The window score of the SnapKV family, as a sequence of backend operations.
#include "server/policy/window_score.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "kernels/status_macros.h"
#include "server/policy/budget.h"
#include "server/policy/observed_attention.h"
#include "server/status/field_error.h"

namespace pkv {

absl::Status validate_window_policy(std::string_view policy, const PolicySpec& spec) {
  PKV_RETURN_IF_ERROR(validate_observed(policy, "window_tokens", spec.params.window_tokens));
  const int32_t kernel = spec.params.kernel_size;
  if (kernel < 1 || kernel > kMostKernel || kernel % 2 == 0) {
    return field_error(absl::StrCat("cache_policy.", std::string(policy), ".kernel_size"),
                       absl::StrCat("must be odd and from 1 to ", kMostKernel, ", got ", kernel));
  }
  return validate_budget(spec, spec.params.window_tokens);
}

std::vector<ObservationRow> WindowScorePolicy::observe(int32_t prompt_tokens) const {
  std::vector<ObservationRow> rows;
  for (int32_t row = std::max(0, prompt_tokens - params_.window_tokens); row < prompt_tokens; ++row) {
    rows.push_back({.prompt_row = row, .position = row});
  }
  return rows;
}

void WindowScorePolicy::score(const LayerView& layer, const ScoreBuffers& buffers, ScoreSteps& steps) const {
  sum_observed_attention(layer, buffers, steps);
  const int64_t pooling_work = int64_t{layer.tokens} * layer.kv_heads * params_.kernel_size;
  steps.add(layer.entries_work() + pooling_work, [this, buffers](const LayerView& now) {
    Backend& backend = *now.backend;
    // Recall is a share of the group's mean whatever is ranked by, so `mass` holds the other reduction only until it is
    // pooled.
    backend.reduce_groups(buffers.sums, params_.group_aggregation, buffers.mass);
    if (const int64_t past = now.tokens - params_.window_tokens; past > 0) {
      backend.pool_scores(buffers.mass.slice_cols(0, past), params_.pooling, params_.kernel_size,
                          buffers.scores.slice_cols(0, past));
    }
    if (params_.group_aggregation != GroupReduce::kMean) {
      backend.reduce_groups(buffers.sums, GroupReduce::kMean, buffers.mass);
    }
  });
}

}  // namespace pkv
