// From the budget a caller names to the number of entries B it means for one text, and the checks and the rounding that
// policies share. Integers only.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "server/policy/policy.h"

namespace pkv {

// The largest integer not above numerator / denominator, denominator > 0: Python's //.
constexpr __int128 floor_div(__int128 numerator, __int128 denominator) {
  return numerator >= 0 ? numerator / denominator : -((-numerator + denominator - 1) / denominator);
}

// Integers that add up to `sum` in place of the fractions numerators[i] / denominator: their whole parts, and what is
// missing one by one to the largest remainders, among equals to the lower index. The fractions add up to `sum`.
std::vector<int64_t> round_to_sum(std::span<const __int128> numerators, __int128 denominator, int64_t sum);

// Spans are [begin, end), 0 <= begin < end. Whether they lie inside the prompt is not known here.
absl::Status validate_pins(const PolicySpec& spec);

// INVALID_ARGUMENT naming the field where a policy that takes a budget cannot work with the spec's pins or budget.
// `always_kept`: the entries every lane keeps in any case (window, sinks), which a budget in tokens has to exceed.
absl::Status validate_budget(const PolicySpec& spec, int64_t always_kept);

// Refuses window_tokens below 1 or sink_tokens below 0. `policy` is the policy's field in the proto message
// CachePolicy.
absl::Status validate_window(std::string_view policy, const PolicyParams& params);
// Refuses more rows that observe, `field` of the policy, than any prompt is worth: each costs as much as a query of the
// prompt does in one layer's attention.
constexpr int32_t kMostObservedRows = 8192;
absl::Status validate_observed(std::string_view policy, std::string_view field, int32_t rows);
absl::Status validate_sinks(std::string_view policy, const PolicyParams& params);

// B for a text of `tokens`, not limited to it: the tokens asked for, or ceil(ratio * tokens), the latter at least
// `at_least`, so that a ratio meant for long prompts works on short ones. kTokens and kKeepRatio only.
int64_t resolve_budget(const Budget& budget, int32_t tokens, int32_t at_least);

// `total` divided in proportion to the weights (in equal parts where all are 0), none below 0, with at most `ceiling`
// each: what that cuts goes to the others in proportion to their weights, and again where it takes one of them above
// the ceiling. Rounded as in round_to_sum. total <= ceiling * weights.size().
std::vector<int64_t> divide_in_proportion(std::span<const int64_t> weights, int64_t total, int64_t ceiling);

// Raises the budgets (of lanes or of layers) below `floor` to it. What that costs comes from those above, in proportion
// to their surplus: with D the sum of what is missing and S the sum of surpluses, one keeps floor + surplus * (S - D) /
// S, rounded as in round_to_sum. The sum stays; it has to be at least floor * budgets.size().
void raise_to_floor(std::span<int64_t> budgets, int64_t floor);

// Cuts the budgets above `ceiling` to it. What that frees goes to the others in proportion to what they have above
// `floor` (in equal parts where none has), and again where that takes one of them above the ceiling; rounded as in
// round_to_sum. The sum stays; it has to be at most ceiling * budgets.size(). No budget is below `floor` <= ceiling.
void cut_to_ceiling(std::span<int64_t> budgets, int64_t floor, int64_t ceiling);

}  // namespace pkv
