// random: per lane the first sink_tokens entries, the newest W, and of the others so many drawn at random: what any
// selection has to beat. A draw is a hash, so it depends on nothing but the seed and the entry's place.
#include "kernels/status_macros.h"
#include "server/policy/budget.h"
#include "server/policy/builtin.h"

namespace pkv {
namespace {

class RandomPolicy : public CachePolicy {
 public:
  explicit RandomPolicy(const PolicyParams& params) : params_(params) {}

  int32_t sink_tokens() const override { return params_.sink_tokens; }
  int32_t window_tokens(int32_t /*budget*/) const override { return params_.window_tokens; }
  void score(const LayerView& layer, const ScoreBuffers& buffers, ScoreSteps& steps) const override {
    steps.add(layer.entries_work(), [buffers, seed = params_.seed](const LayerView& now) {
      now.backend->score_entries({.kind = EntryScore::kHash, .seed = seed, .layer = now.layer}, buffers.scores);
    });
  }
  DecodeRule decode_rule() const override { return {.new_score = NewEntryScore::kHash, .seed = params_.seed}; }

 private:
  PolicyParams params_;
};

}  // namespace

absl::Status validate_random(const PolicySpec& spec) {
  PKV_RETURN_IF_ERROR(validate_window("random", spec.params));
  PKV_RETURN_IF_ERROR(validate_sinks("random", spec.params));
  return validate_budget(spec, int64_t{spec.params.window_tokens} + spec.params.sink_tokens);
}

std::unique_ptr<CachePolicy> make_random(const PolicySpec& spec) { return std::make_unique<RandomPolicy>(spec.params); }

}  // namespace pkv
