// Budget arithmetic and its checks, and the exact reading of decimal numbers.
#include "server/policy/budget.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"

namespace pkv {

absl::StatusOr<int64_t> to_millionths(double value, std::string_view field) {
  constexpr double kLimit = 9007199254740992.0;  // 2^53: every integer up to here is a double
  if (!std::isfinite(value) || std::abs(value * kMillion) > kLimit) {
    return absl::InvalidArgumentError(std::string(field) + ": must be a finite number below 9e9");
  }
  const int64_t millionths = std::llround(value * kMillion);
  // A correctly rounded quotient is the double nearest to the decimal number, so `value` was one exactly if they agree.
  if (static_cast<double>(millionths) / kMillion != value) {
    return absl::InvalidArgumentError(std::string(field) + ": must have at most six decimals");
  }
  return millionths;
}

absl::Status validate_budget(const Budget& budget, int32_t always_kept) {
  switch (budget.kind) {
    case BudgetKind::kNone:
      return absl::InvalidArgumentError("cache_policy.budget: is required by this policy");
    case BudgetKind::kTokens:
      if (budget.tokens <= always_kept) {
        return absl::InvalidArgumentError(absl::StrCat("cache_policy.budget.tokens: must be larger than the ",
                                                       always_kept, " always kept, got ", budget.tokens));
      }
      return absl::OkStatus();
    case BudgetKind::kKeepRatio:
      if (budget.keep_ratio_millionths <= 0 || budget.keep_ratio_millionths > kMillion) {
        return absl::InvalidArgumentError("cache_policy.budget.keep_ratio: must be in (0, 1]");
      }
      return absl::OkStatus();
  }
  PKV_CHECK(false, "a budget of no known kind");
}

int64_t resolve_budget(const Budget& budget, int32_t prompt_tokens, int32_t always_kept) {
  if (budget.kind == BudgetKind::kTokens) return budget.tokens;
  PKV_CHECK(budget.kind == BudgetKind::kKeepRatio, "a budget that was not validated");
  const int64_t scaled = budget.keep_ratio_millionths * prompt_tokens;
  const int64_t share = (scaled + kMillion - 1) / kMillion;  // rounded up
  return std::max(share, int64_t{always_kept} + 1);
}

}  // namespace pkv
