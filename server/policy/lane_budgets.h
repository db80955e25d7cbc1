// From an average budget to what every lane may hold, or all lanes of a layer together: the policy's own division, with
// room in every lane for what is always kept and none for more than there is.
#pragma once

#include <cstdint>
#include <vector>

#include "server/policy/policy.h"

namespace pkv {

struct LaneBudgetInput {
  const CachePolicy& policy;
  int32_t layers = 0;
  int32_t kv_heads = 0;
  int32_t budget = 0;  // B, above what is always kept, at most `tokens`
  int32_t tokens = 0;  // n: what the budget is a share of
  int32_t prompt_tokens = 0;
  int32_t floor = 0;  // entries of every lane at least, where the policy spends exactly
  bool even = false;  // the same in every lane, whatever the policy's rule says
};

struct LaneBudgets {
  std::vector<int32_t> lanes;     // [layers * kv_heads] entries; in a layer whose lanes share, the most of each
  std::vector<int64_t> shared;    // [layers] entries that the lanes of a layer share by their scores; 0: they do not
  std::vector<int32_t> smallest;  // [layers] entries of each lane at least, where they share
};

// Lanes share where the prompt brings more entries than their layer may hold. Where it does not, they have equal parts
// of the total (what is over goes to the lower heads): there is nothing to choose.
LaneBudgets divide_budget(const LaneBudgetInput& input);

}  // namespace pkv
