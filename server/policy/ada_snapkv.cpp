// ada_snapkv: window scores as snapkv and the same entries for every layer, which its KV heads share by their scores
// (Ada-KV, arXiv 2407.11550, algorithm 1).
#include "server/policy/adaptive_heads.h"
#include "server/policy/builtin.h"
#include "server/policy/window_score.h"

namespace pkv {
namespace {

class AdaSnapKvPolicy : public WindowScorePolicy {
 public:
  using WindowScorePolicy::WindowScorePolicy;

  std::vector<LayerTotal> layer_totals(int32_t budget, int32_t tokens, const LaneGrid& grid) const override {
    return adaptive_totals(layer_budgets(budget, tokens, grid.layers), tokens, grid.kv_heads, params());
  }
};

}  // namespace

absl::Status validate_ada_snapkv(const PolicySpec& spec) { return validate_adaptive_policy("ada_snapkv", spec); }

std::unique_ptr<CachePolicy> make_ada_snapkv(const PolicySpec& spec) { return std::make_unique<AdaSnapKvPolicy>(spec); }

}  // namespace pkv
