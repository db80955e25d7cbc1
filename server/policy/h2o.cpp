// h2o: per lane the entries that all queries together attended to most, and the newest `recent` (H2O, arXiv 2306.14048,
// algorithm 1). The sums go on growing while tokens are generated.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "server/policy/budget.h"
#include "server/policy/builtin.h"
#include "server/status/field_error.h"

namespace pkv {
namespace {

class H2oPolicy : public CachePolicy {
 public:
  explicit H2oPolicy(const PolicyParams& params) : params_(params) {}

  // Half of the budget unless given; the newest entry in any case.
  int32_t window_tokens(int32_t budget) const override {
    return params_.recent_tokens ? *params_.recent_tokens : std::max(1, budget / 2);
  }
  absl::Status check_budget(const Budget& budget) const override {
    if (budget.kind != BudgetKind::kMinRecall || params_.recent_tokens) return absl::OkStatus();
    return field_error("cache_policy.h2o.recent_tokens",
                       "is needed with min_recall, which names no budget to take half of");
  }
  Observation observation() const override { return Observation::kEveryRow; }
  // mass[g, j]: column j of the causal softmax matrix, summed over all rows, averaged over the group's query heads.
  // scores[g, j]: the same (SUM), or its mean over the rows that see slot j (MEAN), for which slot == position.
  void score(const LayerView& layer, const ScoreBuffers& buffers, ScoreSteps& steps) const override {
    steps.add(layer.entries_work(), [buffers, score = params_.h2o_score](const LayerView& now) {
      now.backend->reduce_groups(buffers.sums, GroupReduce::kMean, buffers.mass);
      now.backend->copy(buffers.scores, buffers.mass);
      if (score == H2oScore::kSum) return;
      now.backend->score_entries({.kind = EntryScore::kPerQuery}, buffers.scores);
    });
  }
  DecodeRule decode_rule() const override {
    const bool mean = params_.h2o_score == H2oScore::kMean;
    return {.new_score = NewEntryScore::kZero, .rank = mean ? EntryRank::kScorePerQuery : EntryRank::kScore};
  }

 private:
  PolicyParams params_;
};

}  // namespace

absl::Status validate_h2o(const PolicySpec& spec) {
  const int32_t recent = spec.params.recent_tokens.value_or(1);
  if (recent < 1) {
    return field_error("cache_policy.h2o.recent_tokens", absl::StrCat("must be at least 1, got ", recent));
  }
  return validate_budget(spec, recent);
}

std::unique_ptr<CachePolicy> make_h2o(const PolicySpec& spec) { return std::make_unique<H2oPolicy>(spec.params); }

}  // namespace pkv
