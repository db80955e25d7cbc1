// streaming_llm: the first sink_tokens entries and the newest B - sink_tokens, the same in every lane (StreamingLLM,
// arXiv 2309.17453, section 3.2). With scope TOTAL the newest entries slide along with the text.
#include "kernels/status_macros.h"
#include "server/policy/budget.h"
#include "server/policy/builtin.h"
#include "server/status/field_error.h"

namespace pkv {
namespace {

class StreamingLlmPolicy : public CachePolicy {
 public:
  explicit StreamingLlmPolicy(const PolicyParams& params) : params_(params) {}

  int32_t sink_tokens() const override { return params_.sink_tokens; }
  int32_t window_tokens(int32_t /*budget*/) const override { return 0; }
  bool cache_relative() const override { return params_.position_mode == PositionMode::kCacheRelative; }
  // An entry's score is its position: exact in a float below 2^24.
  void score(const LayerView& layer, const ScoreBuffers& buffers, ScoreSteps& steps) const override {
    steps.add(layer.entries_work(), [buffers](const LayerView& now) {
      now.backend->score_entries({.kind = EntryScore::kPosition}, buffers.scores);
    });
  }
  // The oldest goes first: by age, which stays small however long an answer gets.
  DecodeRule decode_rule() const override { return {.new_score = NewEntryScore::kPosition, .rank = EntryRank::kAge}; }

 private:
  PolicyParams params_;
};

}  // namespace

absl::Status validate_streaming_llm(const PolicySpec& spec) {
  PKV_RETURN_IF_ERROR(validate_sinks("streaming_llm", spec.params));
  PKV_RETURN_IF_ERROR(validate_budget(spec, spec.params.sink_tokens));
  if (spec.params.position_mode == PositionMode::kCacheRelative && !spec.pins.empty()) {
    return field_error("cache_policy.pins",
                       "pinned entries would lose their distance to the text with position_mode CACHE_RELATIVE");
  }
  return absl::OkStatus();
}

std::unique_ptr<CachePolicy> make_streaming_llm(const PolicySpec& spec) {
  return std::make_unique<StreamingLlmPolicy>(spec.params);
}

}  // namespace pkv
