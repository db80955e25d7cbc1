// full: keeps every entry and observes nothing. What all other policies are compared with.
#include "kernels/check.h"
#include "server/policy/budget.h"
#include "server/policy/builtin.h"
#include "server/status/field_error.h"

namespace pkv {
namespace {

class FullPolicy : public CachePolicy {
 public:
  int32_t window_tokens(int32_t /*budget*/) const override { return 0; }
  void score(const LayerView&, const ScoreBuffers&, ScoreSteps&) const override {
    PKV_CHECK(false, "full cuts nothing");
  }
  DecodeRule decode_rule() const override { return {.new_score = NewEntryScore::kPosition}; }
};

}  // namespace

absl::Status validate_full(const PolicySpec& spec) {
  if (spec.budget.kind != BudgetKind::kNone || spec.budget.max_bytes != 0 || spec.budget.allow_shortfall) {
    return field_error("cache_policy.budget", "full keeps everything and takes no budget");
  }
  return validate_pins(spec);
}

std::unique_ptr<CachePolicy> make_full(const PolicySpec&) { return std::make_unique<FullPolicy>(); }

}  // namespace pkv
