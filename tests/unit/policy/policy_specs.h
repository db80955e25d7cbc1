// Short ways to write a policy for tests.
#pragma once

#include <memory>

#include "gtest/gtest.h"
#include "server/policy/cache_plan.h"
#include "server/policy/registry.h"
#include "tests/support/lane_table.h"
#include "tests/support/shaped_policy.h"

namespace pkv {

inline PolicySpec spec_of(PolicyKind kind, int64_t budget_tokens) {
  PolicySpec spec{.kind = kind, .lane_table = test::lane_table()};
  if (kind != PolicyKind::kFull) spec.budget = {.kind = BudgetKind::kTokens, .tokens = budget_tokens};
  return spec;
}

inline PolicySpec spec_of_ratio(PolicyKind kind, int64_t millionths) {
  return {.kind = kind,
          .budget = {.kind = BudgetKind::kKeepRatio, .keep_ratio_millionths = millionths},
          .lane_table = test::lane_table()};
}

// A spec with its policy and its plan for one prompt.
struct Planned {
  PolicySpec spec;
  std::unique_ptr<CachePolicy> policy;
  CachePlan plan;
};
struct Lengths {
  CacheGeometry geometry;
  int32_t q_heads = 1;
  int32_t prompt_tokens = 0;
  int32_t max_tokens = 1;
};

inline std::unique_ptr<CachePolicy> policy_of(const PolicySpec& spec) {
  auto policy = make_policy(spec);
  EXPECT_TRUE(policy.ok()) << policy.status();
  return *std::move(policy);
}

inline PlanInput plan_input(const CachePolicy& policy, const PolicySpec& spec, const Lengths& lengths) {
  return {.policy = policy,
          .spec = spec,
          .geometry = lengths.geometry,
          .q_heads = lengths.q_heads,
          .prompt_tokens = lengths.prompt_tokens,
          .max_tokens = lengths.max_tokens};
}

inline Planned planned(const PolicySpec& spec, const Lengths& lengths, test::LaneShape shape = test::LaneShape::kOwn) {
  auto policy = test::make_shaped_policy(spec, shape);
  EXPECT_TRUE(policy.ok()) << policy.status();
  Planned result{.spec = spec, .policy = *std::move(policy)};
  auto plan = plan_cache(plan_input(*result.policy, spec, lengths));
  EXPECT_TRUE(plan.ok()) << plan.status();
  result.plan = *std::move(plan);
  return result;
}

}  // namespace pkv
