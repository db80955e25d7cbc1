// Budget arithmetic and its checks.
#include "server/policy/budget.h"

#include <algorithm>
#include <cstdlib>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"
#include "kernels/status_macros.h"
#include "server/policy/registry.h"
#include "server/status/field_error.h"

namespace pkv {
namespace {

absl::Status refusal(std::string_view field, std::string_view reason) {
  return field_error("cache_policy." + std::string(field), std::string(reason));
}

bool is_share(int64_t millionths) { return millionths > 0 && millionths <= kMillion; }

absl::Status validate_min_recall(const PolicySpec& spec) {
  const PolicyRow& row = policy_row(spec.kind);
  if (!row.observes_attention) {
    return refusal("budget.min_recall",
                   std::string(row.name) + " observes no attention of which entries could carry a share");
  }
  if (!is_share(spec.budget.min_recall_millionths)) return refusal("budget.min_recall", "must be in (0, 1]");
  if (spec.budget.scope != BudgetScope::kPrompt) {
    return refusal("budget.scope",
                   "must be PROMPT with min_recall: how much a lane holds is known after the prompt only");
  }
  if (spec.budget.allow_shortfall && spec.budget.max_bytes == 0) {
    return refusal("budget.allow_shortfall", "needs max_bytes, without which nothing falls short");
  }
  return absl::OkStatus();
}

absl::Status validate_amount(const PolicySpec& spec, int64_t always_kept) {
  const Budget& budget = spec.budget;
  switch (budget.kind) {
    case BudgetKind::kNone:
      return refusal("budget", "is required by this policy");
    case BudgetKind::kTokens:
      if (budget.tokens > always_kept) return absl::OkStatus();
      return refusal("budget.tokens",
                     absl::StrCat("must be larger than the ", always_kept, " always kept, got ", budget.tokens));
    case BudgetKind::kKeepRatio:
      return is_share(budget.keep_ratio_millionths) ? absl::OkStatus()
                                                    : refusal("budget.keep_ratio", "must be in (0, 1]");
    case BudgetKind::kBytes:
      return budget.bytes > 0 ? absl::OkStatus() : refusal("budget.bytes", "must be above 0");
    case BudgetKind::kMinRecall:
      return validate_min_recall(spec);
  }
  PKV_CHECK(false, "a budget of no known kind");
}

}  // namespace

std::vector<int64_t> round_to_sum(std::span<const __int128> numerators, __int128 denominator, int64_t sum) {
  std::vector<int64_t> whole;
  std::vector<__int128> remainders;
  for (const __int128 numerator : numerators) {
    const __int128 part = floor_div(numerator, denominator);
    whole.push_back(static_cast<int64_t>(part));
    remainders.push_back(numerator - part * denominator);
  }
  const int64_t missing = sum - std::accumulate(whole.begin(), whole.end(), int64_t{0});
  PKV_CHECK(missing >= 0 && missing <= static_cast<int64_t>(whole.size()), "fractions that do not add up to the sum");
  std::vector<size_t> order(whole.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return remainders[a] > remainders[b]; });
  for (int64_t i = 0; i < missing; ++i) ++whole[order[static_cast<size_t>(i)]];
  return whole;
}

absl::Status validate_pins(const PolicySpec& spec) {
  for (size_t i = 0; i < spec.pins.size(); ++i) {
    const TokenSpan& pin = spec.pins[i];
    if (pin.begin < 0 || pin.begin >= pin.end) {
      return refusal(absl::StrCat("pins[", i, "]"),
                     absl::StrCat("begin must be at least 0 and below end, got [", pin.begin, ", ", pin.end, ")"));
    }
  }
  return absl::OkStatus();
}

absl::Status validate_budget(const PolicySpec& spec, int64_t always_kept) {
  PKV_RETURN_IF_ERROR(validate_pins(spec));
  const Budget& budget = spec.budget;
  if (budget.interval_tokens < 1) {
    return refusal("budget.interval_tokens", absl::StrCat("must be at least 1, got ", budget.interval_tokens));
  }
  if (budget.kind != BudgetKind::kMinRecall) {
    if (budget.max_bytes != 0) return refusal("budget.max_bytes", "is a ceiling beside min_recall only");
    if (budget.allow_shortfall) return refusal("budget.allow_shortfall", "goes with min_recall and max_bytes only");
  }
  return validate_amount(spec, always_kept);
}

absl::Status validate_window(std::string_view policy, const PolicyParams& params) {
  if (params.window_tokens >= 1) return absl::OkStatus();
  return refusal(std::string(policy) + ".window_tokens",
                 absl::StrCat("must be at least 1, got ", params.window_tokens));
}

absl::Status validate_observed(std::string_view policy, std::string_view field, int32_t rows) {
  if (rows >= 1 && rows <= kMostObservedRows) return absl::OkStatus();
  return refusal(absl::StrCat(std::string(policy), ".", std::string(field)),
                 absl::StrCat("must be from 1 to ", kMostObservedRows, ", got ", rows));
}

absl::Status validate_sinks(std::string_view policy, const PolicyParams& params) {
  if (params.sink_tokens >= 0) return absl::OkStatus();
  return refusal(std::string(policy) + ".sink_tokens", absl::StrCat("must be at least 0, got ", params.sink_tokens));
}

int64_t resolve_budget(const Budget& budget, int32_t tokens, int32_t at_least) {
  if (budget.kind == BudgetKind::kTokens) return budget.tokens;
  PKV_CHECK(budget.kind == BudgetKind::kKeepRatio, "neither tokens nor a ratio");
  const int64_t scaled = budget.keep_ratio_millionths * tokens;
  const int64_t share = (scaled + kMillion - 1) / kMillion;  // rounded up
  return std::max<int64_t>(share, at_least);
}

void raise_to_floor(std::span<int64_t> budgets, int64_t floor) {
  int64_t surplus = 0, missing = 0;
  for (const int64_t budget : budgets) (budget > floor ? surplus : missing) += std::abs(budget - floor);
  PKV_CHECK(surplus >= missing, "more is always kept than there is");
  if (missing == 0) return;
  std::vector<__int128> numerators;
  for (const int64_t budget : budgets) {
    numerators.push_back(static_cast<__int128>(std::max(budget - floor, int64_t{0})) * (surplus - missing));
  }
  const std::vector<int64_t> above = round_to_sum(numerators, surplus, surplus - missing);
  for (size_t i = 0; i < budgets.size(); ++i) budgets[i] = floor + above[i];
}

std::vector<int64_t> divide_in_proportion(std::span<const int64_t> weights, int64_t total, int64_t ceiling) {
  const auto size = static_cast<int64_t>(weights.size());
  PKV_CHECK(total <= ceiling * size, "more entries than there are");
  std::vector<int64_t> parts(weights.size(), ceiling);
  std::vector<size_t> free(weights.size());
  std::iota(free.begin(), free.end(), size_t{0});
  while (true) {
    const int64_t wanted = total - (size - static_cast<int64_t>(free.size())) * ceiling;
    int64_t sum = 0;
    for (const size_t i : free) sum += weights[i];
    const auto numerator = [&](size_t i) { return static_cast<__int128>(sum > 0 ? weights[i] : 1) * wanted; };
    const __int128 denominator = sum > 0 ? sum : std::max<int64_t>(1, static_cast<int64_t>(free.size()));
    const auto first_cut = std::stable_partition(free.begin(), free.end(),
                                                 [&](size_t i) { return numerator(i) <= denominator * ceiling; });
    if (first_cut != free.end()) {
      free.erase(first_cut, free.end());
      continue;
    }
    std::vector<__int128> numerators;
    for (const size_t i : free) numerators.push_back(numerator(i));
    const std::vector<int64_t> rounded = round_to_sum(numerators, denominator, wanted);
    for (size_t i = 0; i < free.size(); ++i) parts[free[i]] = rounded[i];
    return parts;
  }
}

void cut_to_ceiling(std::span<int64_t> budgets, int64_t floor, int64_t ceiling) {
  std::vector<int64_t> surplus;
  for (const int64_t budget : budgets) surplus.push_back(budget - floor);
  const int64_t total = std::accumulate(surplus.begin(), surplus.end(), int64_t{0});
  const std::vector<int64_t> cut = divide_in_proportion(surplus, total, ceiling - floor);
  for (size_t i = 0; i < budgets.size(); ++i) budgets[i] = floor + cut[i];
}

}  // namespace pkv
