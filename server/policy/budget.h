// From the budget a caller names to the number of entries B it means for one prompt. Integers only.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "server/policy/policy.h"

namespace pkv {

// The largest integer not above numerator / denominator, denominator > 0: Python's //.
constexpr __int128 floor_div(__int128 numerator, __int128 denominator) {
  return numerator >= 0 ? numerator / denominator : -((-numerator + denominator - 1) / denominator);
}

// INVALID_ARGUMENT where the budget is absent, its ratio lies outside (0, 1], or its tokens do not exceed
// `always_kept`, the entries every lane keeps in any case (window, sinks).
absl::Status validate_budget(const Budget& budget, int32_t always_kept);

// B for a prompt of n = prompt_tokens, not limited to n: the tokens asked for, or ceil(ratio * n), but at least
// always_kept + 1, so that a ratio meant for long prompts works on short ones.
int64_t resolve_budget(const Budget& budget, int32_t prompt_tokens, int32_t always_kept);

}  // namespace pkv
