// The cut where kept values are refitted: selected, read, moved, and then changed lane by lane.
#include <algorithm>
#include <utility>

#include "kernels/status_macros.h"
#include "server/policy/compressor.h"

namespace pkv {

std::optional<ValueRefit::Shape> Compressor::refit_shape(const CachePolicy& policy, const CachePlan& plan,
                                                         const Options& options) {
  if (!policy.refits_values() || !plan.compresses) return std::nullopt;
  return ValueRefit::Shape{
      .geometry = options.geometry,
      .q_heads = options.q_heads,
      .tokens = options.prompt_tokens,
      .largest_lane = *std::max_element(plan.lane_budgets.begin(), plan.lane_budgets.end()),
      .most_step_work = options.most_step_work,
  };
}

absl::StatusOr<std::optional<LayerOutcome>> Compressor::refit_step(const Cut& cut, int32_t layer) {
  if (refit_counts_.empty()) {
    PKV_ASSIGN_OR_RETURN(refit_counts_, select(cut, layer));
    refit_->begin(refit_counts_);
    return std::nullopt;
  }
  const ValueRefit::Layer whole{.cache = cut.cache,
                                .from = cut.from,
                                .layer = layer,
                                .observed = observed_q_.view(),
                                .kept = cut.scratch.kept.view()};
  if (!refit_->has_read()) {
    refit_->read_step(whole);
    return std::nullopt;
  }
  if (!refit_outcome_) {
    PKV_ASSIGN_OR_RETURN(refit_outcome_, finish_cut(cut, layer, refit_counts_));
    return std::nullopt;
  }
  if (!refit_->done()) {
    std::vector<SequenceId> targets;
    for (const Target& target : cut.targets) targets.push_back(target.sequence);
    refit_->fit_step(whole, targets);
    return std::nullopt;
  }
  refit_counts_.clear();
  return std::exchange(refit_outcome_, std::nullopt);
}

}  // namespace pkv
