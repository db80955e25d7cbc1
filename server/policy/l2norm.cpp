// l2norm: per lane the entries with the shortest keys, and the newest W ("A Simple and Effective L2 Norm-Based Strategy
// for KV Cache Compression", arXiv 2406.11430). Rotation leaves lengths as they are, so rotated keys serve.
#include <cmath>

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
  void score(const LayerView& layer, const ScoreBuffers& buffers) const override {
    layer.backend->key_norms(layer.kv, layer.first_lane, buffers.scores);
    layer.backend->score_entries({.kind = EntryScore::kNegated}, buffers.scores);
  }
  DecodeScoring decode_scoring() const override { return DecodeScoring::kOnEntry; }
  float entry_score(const NewEntry& entry) const override {
    double squares = 0;
    for (const float value : entry.key) squares += static_cast<double>(value) * value;
    return static_cast<float>(-std::sqrt(squares));
  }

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
