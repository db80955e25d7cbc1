// What snapkv and pyramidkv share: the score a prompt's last W queries give to every earlier entry (SnapKV, arXiv
// 2404.14469, section 4), its parameters and their checks. The number of entries per layer is the policy's own.
#pragma once

#include <string_view>

#include "absl/status/status.h"
#include "server/policy/policy.h"

namespace pkv {

// Of the pooling of scores: what it costs grows with it, and beyond it neighbours have nothing in common.
constexpr int32_t kMostKernel = 1023;

// Window, kernel, pins and budget. `policy` is the policy's field in the proto message CachePolicy.
absl::Status validate_window_policy(std::string_view policy, const PolicySpec& spec);

class WindowScorePolicy : public CachePolicy {
 public:
  explicit WindowScorePolicy(const PolicySpec& spec) : params_(spec.params) {}

  int32_t window_tokens(int32_t /*budget*/) const override { return params_.window_tokens; }
  Observation observation() const override { return Observation::kRows; }
  // The last W rows at their own positions.
  std::vector<ObservationRow> observe(int32_t prompt_tokens) const override;
  // mass[g, j]: the window rows' attention to slot j, summed over rows, averaged over the group's query heads.
  // scores[g, j]: the same reduced over the group as asked for, then pooled along [0, n - W).
  void score(const LayerView& layer, const ScoreBuffers& buffers, ScoreSteps& steps) const override;
  DecodeRule decode_rule() const override { return {}; }

 protected:
  const PolicyParams& params() const { return params_; }

 private:
  PolicyParams params_;
};

}  // namespace pkv
