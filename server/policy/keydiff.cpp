// keydiff: per lane the entries whose keys are least similar to the lane's mean key, and the newest W (KeyDiff,
// arXiv 2504.15364): the cosine to the mean of all unit-length keys, evicted ones included.
#include "kernels/status_macros.h"
#include "server/policy/budget.h"
#include "server/policy/builtin.h"

namespace pkv {
namespace {

class KeyDiffPolicy : public CachePolicy {
 public:
  explicit KeyDiffPolicy(const PolicyParams& params) : params_(params) {}

  int32_t window_tokens(int32_t /*budget*/) const override { return params_.window_tokens; }
  Observation observation() const override { return Observation::kKeys; }
  // scores[g, j] = minus the cosine of key j to the sum of the unit-length keys, which is the lane's state.
  void score(const LayerView& layer, const ScoreBuffers& buffers, ScoreSteps& steps) const override {
    steps.add(layer.pair_work() * layer.tokens, [buffers](const LayerView& now) {
      now.backend->key_similarity(now.kv, now.first_lane, buffers.lane_state, buffers.scores);
      now.backend->score_entries({.kind = EntryScore::kNegated}, buffers.scores);
    });
  }
  // A new key is added to the sum, as if it had been there when the prompt was scored, and compared with that.
  DecodeRule decode_rule() const override { return {.new_score = NewEntryScore::kKeySimilarity}; }
  int32_t lane_state_floats(int32_t head_dim) const override { return head_dim; }

 private:
  PolicyParams params_;
};

}  // namespace

absl::Status validate_keydiff(const PolicySpec& spec) {
  PKV_RETURN_IF_ERROR(validate_window("keydiff", spec.params));
  return validate_budget(spec, spec.params.window_tokens);
}

std::unique_ptr<CachePolicy> make_keydiff(const PolicySpec& spec) {
  return std::make_unique<KeyDiffPolicy>(spec.params);
}

}  // namespace pkv
