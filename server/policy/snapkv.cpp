// snapkv: every layer and KV head keeps the B - W entries with the best window scores and the newest W (SnapKV,
// arXiv 2404.14469).
#include "server/policy/builtin.h"
#include "server/policy/window_score.h"

namespace pkv {
namespace {

class SnapKvPolicy : public WindowScorePolicy {
 public:
  using WindowScorePolicy::WindowScorePolicy;

  std::vector<int32_t> lane_budgets(int32_t prompt_tokens, const CacheGeometry& geometry) const override {
    return std::vector<int32_t>(static_cast<size_t>(geometry.layers) * static_cast<size_t>(geometry.kv_heads),
                                budget_tokens(prompt_tokens));
  }
};

}  // namespace

absl::Status validate_snapkv(const PolicySpec& spec) { return validate_window_policy("snapkv", spec); }

std::unique_ptr<CachePolicy> make_snapkv(const PolicySpec& spec) { return std::make_unique<SnapKvPolicy>(spec); }

}  // namespace pkv
