// full: keeps every entry and observes nothing. What all other policies are compared with.
#include "kernels/check.h"
#include "server/policy/builtin.h"

namespace pkv {
namespace {

class FullPolicy : public CachePolicy {
 public:
  std::vector<int32_t> lane_budgets(int32_t prompt_tokens, const CacheGeometry& geometry) const override {
    return std::vector<int32_t>(static_cast<size_t>(geometry.layers) * static_cast<size_t>(geometry.kv_heads),
                                prompt_tokens);
  }
  int32_t budget_tokens(int32_t prompt_tokens) const override { return prompt_tokens; }
  int32_t window_tokens() const override { return 0; }
  std::vector<ObservationRow> observe(int32_t) const override { return {}; }
  void score(const LayerView&, const ScoreBuffers&) const override { PKV_CHECK(false, "full cuts nothing"); }
};

}  // namespace

absl::Status validate_full(const PolicySpec& spec) {
  if (spec.budget.kind != BudgetKind::kNone) {
    return absl::InvalidArgumentError("cache_policy.budget: full keeps everything and takes no budget");
  }
  return absl::OkStatus();
}

std::unique_ptr<CachePolicy> make_full(const PolicySpec&) { return std::make_unique<FullPolicy>(); }

}  // namespace pkv
