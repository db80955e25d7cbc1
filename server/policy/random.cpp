// random: per lane the first sink_tokens entries, the newest W, and of the others so many drawn at random: what any
// selection has to beat. A draw is a hash, so it depends on nothing but the seed and the entry's place.
#include "kernels/status_macros.h"
#include "server/policy/budget.h"
#include "server/policy/builtin.h"
#include "server/policy/host_scores.h"

namespace pkv {
namespace {

// One step of SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", OOPSLA 2014).
uint64_t mixed(uint64_t state) {
  state += 0x9e3779b97f4a7c15u;
  state = (state ^ (state >> 30)) * 0xbf58476d1ce4e5b9u;
  state = (state ^ (state >> 27)) * 0x94d049bb133111ebu;
  return state ^ (state >> 31);
}

class RandomPolicy : public CachePolicy {
 public:
  explicit RandomPolicy(const PolicyParams& params) : params_(params) {}

  int32_t sink_tokens() const override { return params_.sink_tokens; }
  int32_t window_tokens(int32_t /*budget*/) const override { return params_.window_tokens; }
  void score(const LayerView& layer, const ScoreBuffers& buffers) const override {
    make_scores(*layer.backend, buffers.scores,
                [&](int32_t kv_head, int32_t slot) { return draw(layer.layer, kv_head, slot); });
  }
  DecodeRule decode_rule() const override { return {.new_score = NewEntryScore::kHash, .seed = params_.seed}; }

 private:
  // In [0, 1), of 24 bits, which a float holds exactly.
  float draw(int32_t layer, int32_t kv_head, int32_t position) const {
    const uint64_t lane = mixed(mixed(params_.seed) ^ static_cast<uint64_t>(layer)) ^ static_cast<uint64_t>(kv_head);
    const uint64_t bits = mixed(mixed(lane) ^ static_cast<uint64_t>(position)) >> 40;
    return static_cast<float>(bits) * 0x1p-24f;
  }

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
