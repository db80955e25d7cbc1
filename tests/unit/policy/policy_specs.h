// Short ways to write a policy for tests.
#pragma once

#include <memory>

#include "gtest/gtest.h"
#include "server/policy/policy.h"

namespace pkv {

inline PolicySpec spec_of(PolicyKind kind, int64_t budget_tokens) {
  PolicySpec spec{.kind = kind};
  if (kind != PolicyKind::kFull) spec.budget = {.kind = BudgetKind::kTokens, .tokens = budget_tokens};
  return spec;
}

inline PolicySpec spec_of_ratio(PolicyKind kind, int64_t millionths) {
  return {.kind = kind, .budget = {.kind = BudgetKind::kKeepRatio, .keep_ratio_millionths = millionths}};
}

inline std::unique_ptr<CachePolicy> policy_of(const PolicySpec& spec) {
  auto policy = make_policy(spec);
  EXPECT_TRUE(policy.ok()) << policy.status();
  return *std::move(policy);
}

}  // namespace pkv
