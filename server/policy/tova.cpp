// tova: per layer the positions the last query attends to most, averaged over all query heads, the same in every lane,
// and the newest (TOVA, arXiv 2401.06104, section 3).
#include "server/policy/budget.h"
#include "server/policy/builtin.h"
#include "server/policy/observed_attention.h"

namespace pkv {
namespace {

class TovaPolicy : public CachePolicy {
 public:
  int32_t window_tokens(int32_t /*budget*/) const override { return 1; }
  Observation observation() const override { return Observation::kRows; }
  std::vector<ObservationRow> observe(int32_t prompt_tokens) const override {
    return {{.prompt_row = prompt_tokens - 1, .position = prompt_tokens - 1}};
  }
  // mass[g, j] = scores[g, j]: the last row's attention to slot j, averaged over all query heads.
  void score(const LayerView& layer, const ScoreBuffers& buffers, ScoreSteps& steps) const override {
    sum_observed_attention(layer, buffers, steps);
    steps.add(layer.entries_work(), [buffers](const LayerView& now) {
      const TensorView mean = buffers.mass.slice_rows(0, 1);
      now.backend->reduce_groups(buffers.sums, GroupReduce::kMean, mean);
      for (int64_t lane = 1; lane < buffers.mass.rows; ++lane) {
        now.backend->copy(buffers.mass.slice_rows(lane, 1), mean);
      }
      now.backend->copy(buffers.scores, buffers.mass);
    });
  }
  DecodeRule decode_rule() const override { return {}; }
};

}  // namespace

absl::Status validate_tova(const PolicySpec& spec) { return validate_budget(spec, 1); }

std::unique_ptr<CachePolicy> make_tova(const PolicySpec&) { return std::make_unique<TovaPolicy>(); }

}  // namespace pkv
