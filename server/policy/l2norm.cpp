// l2norm: per lane the entries with the shortest keys, and the newest W ("A Simple and Effective L2 Norm-Based Strategy
// for KV Cache Compression", arXiv 2406.11430). Rotation leaves lengths as they are, so rotated keys serve.
#include "kernels/status_macros.h"
#include "server/policy/budget.h"
#include "server/policy/builtin.h"

namespace pkv {
namespace {

class L2NormPolicy : public CachePolicy {
 public:
  explicit L2NormPolicy(const PolicyParams& params) : params_(params) {}

  int32_t window_tokens(int32_t /*budget*/) const override { return params_.window_tokens; }
  Observation observation() const override { return Observation::kKeys; }
  // scores[g, j] = -|k_j|.
  void score(const LayerView& layer, const ScoreBuffers& buffers, ScoreSteps& steps) const override {
    steps.add(layer.entries_work(), [buffers](const LayerView& now) {
      now.backend->key_norms(now.kv, now.first_lane, buffers.scores);
      now.backend->score_entries({.kind = EntryScore::kNegated}, buffers.scores);
    });
  }
  DecodeRule decode_rule() const override { return {.new_score = NewEntryScore::kKeyNorm}; }

 private:
  PolicyParams params_;
};

}  // namespace

absl::Status validate_l2norm(const PolicySpec& spec) {
  PKV_RETURN_IF_ERROR(validate_window("l2norm", spec.params));
  return validate_budget(spec, spec.params.window_tokens);
}

std::unique_ptr<CachePolicy> make_l2norm(const PolicySpec& spec) { return std::make_unique<L2NormPolicy>(spec.params); }

}  // namespace pkv
