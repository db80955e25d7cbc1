// Entries per layer: golden values of both pyramid allocations, and the properties docs/policies.md promises.
#include <cmath>
#include <cstdlib>
#include <limits>
#include <numeric>
#include <random>

#include "gmock/gmock.h"
#include "tests/unit/policy/policy_specs.h"

namespace pkv {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;

struct BudgetCase {
  PyramidAllocation allocation;
  int32_t layers, budget, window;
  int64_t beta_millionths;
  int32_t prompt_tokens;
  std::vector<int32_t> kept;
};

const BudgetCase kBudgetCases[] = {
#include "tests/unit/policy/budget_cases.inc"
};

CacheGeometry layers_of(int32_t layers, int32_t kv_heads = 1) {
  return {.layers = layers, .kv_heads = kv_heads, .head_dim = 64};
}

PolicySpec pyramid_spec(const BudgetCase& wanted) {
  PolicySpec spec = spec_of(PolicyKind::kPyramidKv, wanted.budget);
  spec.params.window_tokens = wanted.window;
  spec.params.beta_millionths = wanted.beta_millionths;
  spec.params.allocation = wanted.allocation;
  return spec;
}

TEST(PyramidBudget, EqualsTheGoldenValues) {
  for (const BudgetCase& golden : kBudgetCases) {
    const auto policy = policy_of(pyramid_spec(golden));
    EXPECT_EQ(policy->lane_budgets(golden.prompt_tokens, layers_of(golden.layers)), golden.kept)
        << (golden.allocation == PyramidAllocation::kExact ? "EXACT" : "FACTORY") << " L " << golden.layers << " B "
        << golden.budget << " W " << golden.window << " beta " << golden.beta_millionths << " n "
        << golden.prompt_tokens;
  }
}

TEST(PyramidBudget, EveryHeadOfALayerGetsTheSame) {
  const auto policy = policy_of(spec_of(PolicyKind::kPyramidKv, 64));
  const std::vector<int32_t> one = policy->lane_budgets(1000, layers_of(5, 1));
  const std::vector<int32_t> three = policy->lane_budgets(1000, layers_of(5, 3));
  ASSERT_EQ(three.size(), 15u);
  for (size_t lane = 0; lane < three.size(); ++lane) EXPECT_EQ(three[lane], one[lane / 3]);
}

BudgetCase random_case(std::mt19937& random) {
  const auto between = [&](int32_t low, int32_t high) {
    return low + static_cast<int32_t>(random() % static_cast<uint32_t>(high - low + 1));
  };
  BudgetCase drawn{.allocation = PyramidAllocation::kExact, .layers = between(1, 90), .window = between(1, 40)};
  drawn.budget = drawn.window + between(1, 300);
  drawn.prompt_tokens = drawn.budget + between(-5, 700);
  drawn.beta_millionths = random() % 3 == 0 ? kMillion * between(1, 40) : kMillion + random() % 60'000'000u;
  return drawn;
}

TEST(PyramidBudget, ExactKeepsItsProperties) {
  std::mt19937 random(7);
  for (int round = 0; round < 3000; ++round) {
    const BudgetCase drawn = random_case(random);
    const int32_t n = drawn.prompt_tokens;
    const auto kept = policy_of(pyramid_spec(drawn))->lane_budgets(n, layers_of(drawn.layers));
    ASSERT_EQ(kept.size(), static_cast<size_t>(drawn.layers));
    if (n <= drawn.budget) {
      ASSERT_THAT(kept, Each(n));
      continue;
    }
    ASSERT_EQ(std::accumulate(kept.begin(), kept.end(), int64_t{0}), int64_t{drawn.layers} * drawn.budget);
    ASSERT_LE(kept.front(), n);
    ASSERT_GE(kept.back(), drawn.window);
    for (size_t layer = 1; layer < kept.size(); ++layer) ASSERT_LE(kept[layer], kept[layer - 1]);
    // On the line, within one entry: no layer is rounded by more.
    const double mean = drawn.budget - drawn.window;
    const double lowest = std::min(2 * mean - mean * kMillion / static_cast<double>(drawn.beta_millionths),
                                   static_cast<double>(n - drawn.window));
    for (size_t layer = 0; layer < kept.size() && kept.size() > 1; ++layer) {
      const double line = lowest - 2 * (lowest - mean) * static_cast<double>(layer) / (drawn.layers - 1);
      ASSERT_LT(std::abs(kept[layer] - drawn.window - line), 1.0 + 1e-9);
    }
  }
}

TEST(PyramidBudget, ExactIsContinuousInThePromptsLength) {
  for (int32_t layers : {2, 30, 33}) {
    const auto policy = policy_of(spec_of(PolicyKind::kPyramidKv, 128));
    std::vector<int32_t> before = policy->lane_budgets(120, layers_of(layers));
    for (int32_t n = 121; n < 400; ++n) {
      const std::vector<int32_t> now = policy->lane_budgets(n, layers_of(layers));
      // The line moves by at most one entry, and rounding by less than one at either end.
      for (size_t layer = 0; layer < now.size(); ++layer) ASSERT_LE(std::abs(now[layer] - before[layer]), 2) << n;
      before = now;
    }
  }
}

TEST(PyramidBudget, OneLayerGetsTheBudget) {
  for (PyramidAllocation allocation : {PyramidAllocation::kExact, PyramidAllocation::kFactory}) {
    PolicySpec spec = spec_of(PolicyKind::kPyramidKv, 128);
    spec.params.allocation = allocation;
    EXPECT_THAT(policy_of(spec)->lane_budgets(8192, layers_of(1)), ElementsAre(128));
    EXPECT_THAT(policy_of(spec)->lane_budgets(129, layers_of(1)), ElementsAre(128));
    EXPECT_THAT(policy_of(spec)->lane_budgets(128, layers_of(1)), ElementsAre(128));
    EXPECT_THAT(policy_of(spec)->lane_budgets(90, layers_of(1)), ElementsAre(90));
  }
}

TEST(PyramidBudget, FactoryStaysWithinWindowAndPrompt) {
  std::mt19937 random(8);
  for (int round = 0; round < 3000; ++round) {
    BudgetCase drawn = random_case(random);
    drawn.allocation = PyramidAllocation::kFactory;
    const auto kept = policy_of(pyramid_spec(drawn))->lane_budgets(drawn.prompt_tokens, layers_of(drawn.layers));
    for (int32_t entries : kept) {
      ASSERT_LE(entries, drawn.prompt_tokens);
      ASSERT_GE(entries, std::min(drawn.prompt_tokens, drawn.window));
    }
  }
}

TEST(PyramidBudget, BetaOneIsSnapKv) {
  PolicySpec spec = spec_of(PolicyKind::kPyramidKv, 100);
  spec.params.beta_millionths = kMillion;
  const auto pyramid = policy_of(spec), snapkv = policy_of(spec_of(PolicyKind::kSnapKv, 100));
  for (int32_t n : {1, 99, 100, 101, 150, 5000}) {
    EXPECT_EQ(pyramid->lane_budgets(n, layers_of(30, 3)), snapkv->lane_budgets(n, layers_of(30, 3))) << n;
  }
}

TEST(PyramidBudget, LargestNumbersDoNotOverflow) {
  const int32_t n = std::numeric_limits<int32_t>::max();
  PolicySpec spec = spec_of(PolicyKind::kPyramidKv, n - 1);
  spec.params.beta_millionths = std::numeric_limits<int64_t>::max();
  const auto kept = policy_of(spec)->lane_budgets(n, layers_of(1000));
  EXPECT_EQ(std::accumulate(kept.begin(), kept.end(), int64_t{0}), int64_t{1000} * (n - 1));
  EXPECT_EQ(kept.front(), n);
}

TEST(Budget, RatiosAreRoundedUp) {
  const auto budget = [](int64_t millionths, int32_t n) {
    return policy_of(spec_of_ratio(PolicyKind::kSnapKv, millionths))->budget_tokens(n);
  };
  EXPECT_EQ(budget(125'000, 8000), 1000);
  EXPECT_EQ(budget(125'000, 8001), 1001);
  EXPECT_EQ(budget(120'000, 1000), 120);  // 0.12 * 1000 is 120 exactly; in floating point it may not be
  EXPECT_EQ(budget(70'000, 100), 9);      // ceil(7) is raised to W + 1
  EXPECT_EQ(budget(290'000, 100), 29);    // 0.29 * 100 in floating point is 28.999999999999996
  EXPECT_EQ(budget(1'000'000, 777), 777);
  EXPECT_EQ(budget(1, 8192), 9);
  EXPECT_EQ(budget(1, 5), 5);                                                   // raised to 9, more than there is
  EXPECT_EQ(budget(999'999, std::numeric_limits<int32_t>::max()), 2147481500);  // ceil(2147481499.516...)
}

TEST(Budget, TokensAreWhatIsAskedForUpToThePrompt) {
  for (PolicyKind kind : {PolicyKind::kSnapKv, PolicyKind::kPyramidKv}) {
    EXPECT_EQ(policy_of(spec_of(kind, 128))->budget_tokens(1000), 128);
    EXPECT_EQ(policy_of(spec_of(kind, 128))->budget_tokens(128), 128);
    EXPECT_EQ(policy_of(spec_of(kind, 128))->budget_tokens(100), 100);
    EXPECT_EQ(policy_of(spec_of(kind, int64_t{1} << 40))->budget_tokens(100), 100);
  }
  EXPECT_EQ(policy_of(spec_of(PolicyKind::kFull, 0))->budget_tokens(100), 100);
}

TEST(Budget, EveryPolicyKeepsEverythingWhereTheBudgetCoversThePrompt) {
  for (PolicyKind kind : {PolicyKind::kFull, PolicyKind::kSnapKv, PolicyKind::kPyramidKv}) {
    for (int32_t n : {1, 7, 8, 9, 127, 128}) {
      EXPECT_THAT(policy_of(spec_of(kind, 128))->lane_budgets(n, layers_of(4, 2)), Each(n));
    }
  }
}

TEST(ToMillionths, AcceptsWhatSixDecimalsCanSay) {
  EXPECT_EQ(*to_millionths(0.125, "f"), 125'000);
  EXPECT_EQ(*to_millionths(0.1, "f"), 100'000);
  EXPECT_EQ(*to_millionths(0.000001, "f"), 1);
  EXPECT_EQ(*to_millionths(18.000001, "f"), 18'000'001);
  EXPECT_EQ(*to_millionths(0.0, "f"), 0);
  EXPECT_EQ(*to_millionths(-2.5, "f"), -2'500'000);
  std::mt19937_64 random(3);
  for (int round = 0; round < 10000; ++round) {
    const auto millionths = static_cast<int64_t>(random() % 1'000'000'000'000u);
    const std::string text =
        std::to_string(millionths / kMillion) + "." + std::to_string(kMillion + millionths % kMillion).substr(1);
    ASSERT_EQ(*to_millionths(std::strtod(text.c_str(), nullptr), "f"), millionths) << text;
  }
}

TEST(ToMillionths, RefusesTheRestAndNamesTheField) {
  for (double value : {0.1234567, 1.0 / 3, 1e-7, std::nextafter(0.1, 1.0), 1e30, -1e30, HUGE_VAL, std::nan("")}) {
    const auto result = to_millionths(value, "cache_policy.pyramidkv.beta");
    EXPECT_EQ(result.status().code(), absl::StatusCode::kInvalidArgument) << value;
    EXPECT_THAT(std::string(result.status().message()), ::testing::StartsWith("cache_policy.pyramidkv.beta: "));
  }
}

}  // namespace
}  // namespace pkv
