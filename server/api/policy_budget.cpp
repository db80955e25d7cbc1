#include "server/api/policy_budget.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/status_macros.h"
#include "server/api/errors.h"
#include "server/api/policy_parameters.h"
#include "server/policy/registry.h"

namespace pkv {
namespace {

namespace pb = ::pyramidkv::v1;

absl::Status bad_budget(const char* field, const std::string& description) {
  return bad_cache_policy(absl::StrCat("cache_policy.budget.", field), description);
}

// 1 to 1000000 millionths.
absl::Status read_share(double value, const char* field, int64_t& out) {
  return read_millionths(value, 1, kMillion, absl::StrCat("cache_policy.budget.", field), out);
}

absl::Status read_amount(const pb::CacheBudget& wished, Budget& budget) {
  switch (wished.amount_case()) {
    case pb::CacheBudget::kTokens:
      budget = {.kind = BudgetKind::kTokens, .tokens = wished.tokens()};
      return absl::OkStatus();
    case pb::CacheBudget::kKeepRatio:
      budget = {.kind = BudgetKind::kKeepRatio};
      return read_share(wished.keep_ratio(), "keep_ratio", budget.keep_ratio_millionths);
    case pb::CacheBudget::kBytes:
      budget = {.kind = BudgetKind::kBytes, .bytes = wished.bytes(), .scope = BudgetScope::kTotal};
      return absl::OkStatus();
    case pb::CacheBudget::kMinRecall:
      budget = {.kind = BudgetKind::kMinRecall};
      return read_share(wished.min_recall(), "min_recall", budget.min_recall_millionths);
    case pb::CacheBudget::AMOUNT_NOT_SET:
      break;
  }
  return absl::OkStatus();
}

absl::Status read_scope(const pb::CacheBudget& wished, Budget& budget) {
  switch (wished.scope()) {
    case pb::BUDGET_SCOPE_UNSPECIFIED:
      break;
    case pb::BUDGET_SCOPE_PROMPT:
      budget.scope = BudgetScope::kPrompt;
      break;
    case pb::BUDGET_SCOPE_TOTAL:
      budget.scope = BudgetScope::kTotal;
      break;
    default:
      return bad_budget("scope", absl::StrCat("has no value ", static_cast<int>(wished.scope())));
  }
  if (!wished.has_interval_tokens()) return absl::OkStatus();
  if (budget.scope != BudgetScope::kTotal) return bad_budget("interval_tokens", "needs the scope TOTAL");
  return read_tokens(wished.interval_tokens(), "cache_policy.budget.interval_tokens", budget.interval_tokens);
}

// Zero stands for no ceiling in a Budget, so it is none to ask for.
absl::Status read_ceiling(const pb::CacheBudget& wished, Budget& budget) {
  if (wished.has_max_bytes() && wished.max_bytes() == 0) return bad_budget("max_bytes", "must be at least 1");
  if (wished.has_max_bytes()) budget.max_bytes = wished.max_bytes();
  if (wished.has_allow_shortfall()) budget.allow_shortfall = wished.allow_shortfall();
  return absl::OkStatus();
}

}  // namespace

absl::Status read_budget(const pb::CacheBudget& wished, PolicySpec& spec) {
  if (wished.ByteSizeLong() == 0) return absl::OkStatus();
  const PolicyRow& row = policy_row(spec.kind);
  if (!row.takes_budget) {
    return bad_cache_policy("cache_policy.budget", absl::StrCat("the policy ", std::string(row.name),
                                                                " takes no budget; name a policy that does"));
  }
  PKV_RETURN_IF_ERROR(read_amount(wished, spec.budget));
  PKV_RETURN_IF_ERROR(read_scope(wished, spec.budget));
  return read_ceiling(wished, spec.budget);
}

void write_budget(const Budget& budget, pb::CacheBudget& out) {
  constexpr double kScale = static_cast<double>(kMillion);
  switch (budget.kind) {
    case BudgetKind::kNone:
      return;
    case BudgetKind::kTokens:
      out.set_tokens(static_cast<uint32_t>(budget.tokens));
      break;
    case BudgetKind::kKeepRatio:
      out.set_keep_ratio(static_cast<double>(budget.keep_ratio_millionths) / kScale);
      break;
    case BudgetKind::kBytes:
      out.set_bytes(budget.bytes);
      break;
    case BudgetKind::kMinRecall:
      out.set_min_recall(static_cast<double>(budget.min_recall_millionths) / kScale);
      out.set_allow_shortfall(budget.allow_shortfall);
      if (budget.max_bytes > 0) out.set_max_bytes(budget.max_bytes);
      break;
  }
  const bool total = budget.scope == BudgetScope::kTotal;
  out.set_scope(total ? pb::BUDGET_SCOPE_TOTAL : pb::BUDGET_SCOPE_PROMPT);
  if (total) out.set_interval_tokens(static_cast<uint32_t>(budget.interval_tokens));
}

absl::Status read_pins(const pb::CachePolicy& wished, PolicySpec& spec) {
  if (wished.has_pin_system_message()) spec.pin_system_message = wished.pin_system_message();
  if (wished.pins_size() == 0) return absl::OkStatus();
  if (wished.pins_size() > kMaxPins) {
    return bad_cache_policy("cache_policy.pins",
                            absl::StrCat("must be at most ", kMaxPins, " spans, not ", wished.pins_size()));
  }
  std::vector<TokenSpan> pins(static_cast<size_t>(wished.pins_size()));
  for (int i = 0; i < wished.pins_size(); ++i) {
    const std::string path = absl::StrCat("cache_policy.pins[", i, "]");
    TokenSpan& pin = pins[static_cast<size_t>(i)];
    PKV_RETURN_IF_ERROR(read_tokens(wished.pins(i).begin(), path + ".begin", pin.begin));
    PKV_RETURN_IF_ERROR(read_tokens(wished.pins(i).end(), path + ".end", pin.end));
  }
  spec.pins = std::move(pins);
  return absl::OkStatus();
}

void write_pins(const PolicySpec& spec, pb::CachePolicy& out) {
  for (const TokenSpan& pin : spec.pins) {
    pb::TokenSpan& span = *out.add_pins();
    span.set_begin(static_cast<uint32_t>(pin.begin));
    span.set_end(static_cast<uint32_t>(pin.end));
  }
  out.set_pin_system_message(spec.pin_system_message);
}

}  // namespace pkv
