// keydiff: per lane the entries whose keys are least similar to the lane's mean key, and the newest W (KeyDiff,
// arXiv 2504.15364): the cosine to the mean of all unit-length keys, evicted ones included.
#include <cmath>

#include "kernels/check.h"
#include "kernels/status_macros.h"
#include "server/policy/budget.h"
#include "server/policy/builtin.h"

namespace pkv {
namespace {

double length_of(std::span<const float> vector) {
  double squares = 0;
  for (const float value : vector) squares += static_cast<double>(value) * value;
  return std::sqrt(squares);
}

class KeyDiffPolicy : public CachePolicy {
 public:
  explicit KeyDiffPolicy(const PolicyParams& params) : params_(params) {}

  int32_t window_tokens(int32_t /*budget*/) const override { return params_.window_tokens; }
  Observation observation() const override { return Observation::kKeys; }
  // scores[g, j] = minus the cosine of key j to the sum of the unit-length keys, which is the lane's state.
  void score(const LayerView& layer, const ScoreBuffers& buffers) const override {
    layer.backend->key_similarity(layer.kv, layer.first_lane, buffers.lane_state, buffers.scores);
    layer.backend->score_entries({.kind = EntryScore::kNegated}, buffers.scores);
  }
  DecodeScoring decode_scoring() const override { return DecodeScoring::kOnEntry; }
  int32_t lane_state_floats(int32_t head_dim) const override { return head_dim; }
  // Adds the key to the sum, as if it had been there when the prompt was scored, and compares it with that.
  float entry_score(const NewEntry& entry) const override {
    PKV_CHECK(entry.lane_state.size() == entry.key.size(), "the sum has as many numbers as a key");
    const double key_length = length_of(entry.key);
    if (key_length == 0) return 0;
    double product = 0;
    for (size_t i = 0; i < entry.key.size(); ++i) {
      float& sum = entry.lane_state[i];
      sum = static_cast<float>(sum + entry.key[i] / key_length);
      product += static_cast<double>(entry.key[i]) * sum;
    }
    const double lengths = key_length * length_of(entry.lane_state);
    return lengths > 0 ? static_cast<float>(-product / lengths) : 0;
  }

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
