// Totals and floors of layers whose heads share.
#include "server/policy/adaptive_heads.h"

#include "absl/strings/str_cat.h"
#include "server/policy/window_score.h"
#include "server/status/field_error.h"

namespace pkv {

absl::Status validate_adaptive_policy(std::string_view policy, const PolicySpec& spec) {
  if (spec.params.floor_millionths < 0 || spec.params.floor_millionths > kMillion) {
    return field_error(absl::StrCat("cache_policy.", std::string(policy), ".floor"), "must be from 0 to 1");
  }
  return validate_window_policy(policy, spec);
}

std::vector<LayerTotal> adaptive_totals(std::span<const int32_t> layer_budgets, int32_t tokens, int32_t kv_heads,
                                        const PolicyParams& params) {
  std::vector<LayerTotal> totals;
  for (const int32_t budget : layer_budgets) {
    const int64_t past = budget - params.window_tokens;
    totals.push_back(
        {.entries = int64_t{budget} * kv_heads,
         .smallest_lane = params.window_tokens + static_cast<int32_t>(past * params.floor_millionths / kMillion),
         .largest_lane = tokens});
  }
  return totals;
}

}  // namespace pkv
