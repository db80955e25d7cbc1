// ada_pyramidkv: window scores and entries per layer as pyramidkv; the KV heads of a layer share them by their scores
// (Ada-KV, arXiv 2407.11550, section 4.3).
#include "kernels/status_macros.h"
#include "server/policy/adaptive_heads.h"
#include "server/policy/builtin.h"
#include "server/policy/pyramid.h"
#include "server/policy/window_score.h"

namespace pkv {
namespace {

class AdaPyramidKvPolicy : public WindowScorePolicy {
 public:
  using WindowScorePolicy::WindowScorePolicy;

  std::vector<LayerTotal> layer_totals(int32_t budget, int32_t tokens, const LaneGrid& grid) const override {
    return adaptive_totals(exact_pyramid({.tokens = tokens,
                                          .budget = budget,
                                          .window = params().window_tokens,
                                          .layers = grid.layers,
                                          .beta_millionths = params().beta_millionths}),
                           tokens, grid.kv_heads, params());
  }
};

}  // namespace

absl::Status validate_ada_pyramidkv(const PolicySpec& spec) {
  PKV_RETURN_IF_ERROR(validate_beta("ada_pyramidkv", spec.params));
  return validate_adaptive_policy("ada_pyramidkv", spec);
}

std::unique_ptr<CachePolicy> make_ada_pyramidkv(const PolicySpec& spec) {
  return std::make_unique<AdaPyramidKvPolicy>(spec);
}

}  // namespace pkv
