// Entries per layer: golden values of both pyramid allocations, and the properties docs/policies.md promises; budgets
// in tokens and ratios; the room made for what is always kept.
#include "server/policy/budget.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <functional>
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

// Entries per layer of a text of n tokens: all of them where the budget covers it.
std::vector<int32_t> budgets_of(const PolicySpec& spec, int32_t n, int32_t layers) {
  const int64_t budget = resolve_budget(spec.budget, n, spec.params.window_tokens + 1);
  if (n <= budget) return std::vector<int32_t>(static_cast<size_t>(layers), n);
  return policy_of(spec)->layer_budgets(static_cast<int32_t>(budget), n, layers);
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
    EXPECT_EQ(budgets_of(pyramid_spec(golden), golden.prompt_tokens, golden.layers), golden.kept)
        << (golden.allocation == PyramidAllocation::kExact ? "EXACT" : "FACTORY") << " L " << golden.layers << " B "
        << golden.budget << " W " << golden.window << " beta " << golden.beta_millionths << " n "
        << golden.prompt_tokens;
  }
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
    const auto kept = budgets_of(pyramid_spec(drawn), n, drawn.layers);
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
    const PolicySpec spec = spec_of(PolicyKind::kPyramidKv, 128);
    std::vector<int32_t> before = budgets_of(spec, 120, layers);
    for (int32_t n = 121; n < 400; ++n) {
      const std::vector<int32_t> now = budgets_of(spec, n, layers);
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
    EXPECT_THAT(budgets_of(spec, 8192, 1), ElementsAre(128));
    EXPECT_THAT(budgets_of(spec, 129, 1), ElementsAre(128));
    EXPECT_THAT(budgets_of(spec, 128, 1), ElementsAre(128));
    EXPECT_THAT(budgets_of(spec, 90, 1), ElementsAre(90));
  }
}

TEST(PyramidBudget, FactoryStaysWithinWindowAndPrompt) {
  std::mt19937 random(8);
  for (int round = 0; round < 3000; ++round) {
    BudgetCase drawn = random_case(random);
    drawn.allocation = PyramidAllocation::kFactory;
    const auto kept = budgets_of(pyramid_spec(drawn), drawn.prompt_tokens, drawn.layers);
    for (int32_t entries : kept) {
      ASSERT_LE(entries, drawn.prompt_tokens);
      ASSERT_GE(entries, std::min(drawn.prompt_tokens, drawn.window));
    }
  }
}

TEST(PyramidBudget, BetaOneIsSnapKv) {
  PolicySpec spec = spec_of(PolicyKind::kPyramidKv, 100);
  spec.params.beta_millionths = kMillion;
  for (int32_t n : {1, 99, 100, 101, 150, 5000}) {
    EXPECT_EQ(budgets_of(spec, n, 30), budgets_of(spec_of(PolicyKind::kSnapKv, 100), n, 30)) << n;
  }
}

TEST(PyramidBudget, LargestNumbersDoNotOverflow) {
  const int32_t n = std::numeric_limits<int32_t>::max();
  PolicySpec spec = spec_of(PolicyKind::kPyramidKv, n - 1);
  spec.params.beta_millionths = std::numeric_limits<int64_t>::max();
  const auto kept = budgets_of(spec, n, 1000);
  EXPECT_EQ(std::accumulate(kept.begin(), kept.end(), int64_t{0}), int64_t{1000} * (n - 1));
  EXPECT_EQ(kept.front(), n);
}

TEST(PyramidBudget, OnlyExactSaysThatItSpendsExactly) {
  PolicySpec spec = spec_of(PolicyKind::kPyramidKv, 100);
  EXPECT_TRUE(policy_of(spec)->spends_exactly());
  spec.params.allocation = PyramidAllocation::kFactory;
  EXPECT_FALSE(policy_of(spec)->spends_exactly());
}

TEST(Budget, EveryOtherPolicyTreatsLayersAlike) {
  for (const PolicyRow& row : policy_table()) {
    if (!row.takes_budget || row.kind == PolicyKind::kPyramidKv) continue;
    EXPECT_TRUE(policy_of(spec_of(row.kind, 60))->spends_exactly());
    EXPECT_THAT(policy_of(spec_of(row.kind, 60))->layer_budgets(60, 61, 7), ElementsAre(60, 60, 60, 60, 60, 60, 60));
  }
}

TEST(Budget, RatiosAreRoundedUp) {
  const auto budget = [](int64_t millionths, int32_t n) {
    return resolve_budget(spec_of_ratio(PolicyKind::kSnapKv, millionths).budget, n, 9);
  };
  EXPECT_EQ(budget(125'000, 8000), 1000);
  EXPECT_EQ(budget(125'000, 8001), 1001);
  EXPECT_EQ(budget(120'000, 1000), 120);  // 0.12 * 1000 is 120 exactly; in floating point it may not be
  EXPECT_EQ(budget(70'000, 100), 9);      // ceil(7) is raised
  EXPECT_EQ(budget(290'000, 100), 29);    // 0.29 * 100 in floating point is 28.999999999999996
  EXPECT_EQ(budget(1'000'000, 777), 777);
  EXPECT_EQ(budget(1, 8192), 9);
  EXPECT_EQ(budget(1, 5), 9);                                                   // more than there is
  EXPECT_EQ(budget(999'999, std::numeric_limits<int32_t>::max()), 2147481500);  // ceil(2147481499.516...)
}

TEST(Budget, TokensAreWhatIsAskedFor) {
  for (const int64_t tokens : {int64_t{5}, int64_t{128}, int64_t{1} << 40}) {
    EXPECT_EQ(resolve_budget({.kind = BudgetKind::kTokens, .tokens = tokens}, 100, 9), tokens);
  }
}

TEST(Budget, MillionthsAreTheNearest) {
  EXPECT_EQ(to_millionths(0.1), 100'000);
  EXPECT_EQ(to_millionths(18.000001), 18'000'001);
  EXPECT_EQ(to_millionths(-2.5), -2'500'000);
  EXPECT_EQ(to_millionths(1.0 / 3), 333'333);
  EXPECT_EQ(to_millionths(0.0000006), 1);
  EXPECT_EQ(to_millionths(0.0000004), 0);
  std::mt19937_64 random(3);
  for (int round = 0; round < 10000; ++round) {
    const auto millionths = static_cast<int64_t>(random() % 1'000'000'000'000u);
    const std::string text =
        std::to_string(millionths / kMillion) + "." + std::to_string(kMillion + millionths % kMillion).substr(1);
    ASSERT_EQ(to_millionths(std::strtod(text.c_str(), nullptr)), millionths) << text;
  }
}

std::vector<int64_t> raised(std::vector<int64_t> budgets, int64_t floor) {
  raise_to_floor(budgets, floor);
  return budgets;
}

TEST(LaneBudgets, AreThoseOfTheirLayersUnlessAPolicySaysOtherwise) {
  const auto policy = policy_of(spec_of(PolicyKind::kPyramidKv, 60));
  const std::vector<int32_t> layers = policy->layer_budgets(60, 500, 4);
  const std::vector<int32_t> lanes = policy->lane_budgets(60, 500, {.layers = 4, .kv_heads = 3});
  ASSERT_EQ(lanes.size(), 12u);
  for (size_t lane = 0; lane < lanes.size(); ++lane) EXPECT_EQ(lanes[lane], layers[lane / 3]);
  EXPECT_TRUE(policy->layer_totals(60, 500, {.layers = 4, .kv_heads = 3}).empty());
}

TEST(Floor, IsPaidInProportionToTheSurplus) {
  EXPECT_THAT(raised({10, 9, 8}, 8), ElementsAre(10, 9, 8));
  EXPECT_THAT(raised({14, 12, 4}, 10), ElementsAre(10, 10, 10));          // all the surplus
  EXPECT_THAT(raised({40, 25, 10, 5}, 10), ElementsAre(37, 23, 10, 10));  // 30 + 15 give 5: 26 2/3 and 13 1/3 stay
  EXPECT_THAT(raised({13, 13, 9}, 10), ElementsAre(13, 12, 10));          // 2 1/2 each; of equals the lower layer
  EXPECT_THAT(raised({0, 100}, 50), ElementsAre(50, 50));
  EXPECT_THAT(raised({7}, 7), ElementsAre(7));
  const int64_t most = std::numeric_limits<int32_t>::max();
  EXPECT_THAT(raised({most, most, most, 1}, 1001), ElementsAre(most - 333, most - 333, most - 334, 1001));
}

TEST(Floor, KeepsSumAndOrder) {
  std::mt19937 random(9);
  for (int round = 0; round < 5000; ++round) {
    std::vector<int64_t> before(1 + random() % 90);
    for (int64_t& budget : before) budget = static_cast<int64_t>(random() % (round % 2 == 0 ? 30 : 5000));
    std::sort(before.begin(), before.end(), std::greater<>());
    const int64_t sum = std::accumulate(before.begin(), before.end(), int64_t{0});
    const auto floor = static_cast<int64_t>(random() % (static_cast<uint64_t>(sum) / before.size() + 1));
    const std::vector<int64_t> after = raised(before, floor);
    ASSERT_EQ(std::accumulate(after.begin(), after.end(), int64_t{0}), sum);
    ASSERT_GE(*std::min_element(after.begin(), after.end()), floor);
    ASSERT_TRUE(std::is_sorted(after.begin(), after.end(), std::greater<>()));
    double surplus = 0, missing = 0;
    for (const int64_t budget : before) {
      (budget > floor ? surplus : missing) += static_cast<double>(std::abs(budget - floor));
    }
    for (size_t layer = 0; layer < before.size(); ++layer) {
      if (before[layer] <= floor) {
        ASSERT_EQ(after[layer], floor);
        continue;
      }
      ASSERT_LE(after[layer], before[layer]);
      const double share = static_cast<double>(before[layer] - floor) * (surplus - missing) / surplus;
      ASSERT_LT(std::abs(static_cast<double>(after[layer] - floor) - share), 1 + 1e-9);
    }
  }
}

std::vector<int64_t> cut(std::vector<int64_t> budgets, int64_t floor, int64_t ceiling) {
  cut_to_ceiling(budgets, floor, ceiling);
  return budgets;
}

TEST(Ceiling, WhatIsCutGoesToTheOthersInProportionToTheirSurplus) {
  EXPECT_THAT(cut({10, 9, 8}, 2, 10), ElementsAre(10, 9, 8));
  EXPECT_THAT(cut({16, 6, 4}, 2, 10), ElementsAre(10, 10, 6));  // 6 in parts of 4 and 2
  EXPECT_THAT(cut({30, 8, 2, 2}, 2, 12),
              ElementsAre(12, 12, 9, 9));  // all to the second, and 14 of it on in equal parts
  EXPECT_THAT(cut({15, 4, 4, 4}, 4, 10), ElementsAre(10, 6, 6, 5));  // of equals the lower one
  EXPECT_THAT(cut({20, 0}, 0, 10), ElementsAre(10, 10));
  EXPECT_THAT(cut({7}, 7, 7), ElementsAre(7));
  const int64_t most = int64_t{1} << 38;  // a layer of 128 lanes
  EXPECT_THAT(cut({most, most / 2 - 1, 0}, 0, most / 2), ElementsAre(most / 2, most / 2, most / 2 - 1));
}

// The fractions, in floating point: the factor by which the surpluses have to grow, found by halving.
TEST(Ceiling, IsTheFactorThatKeepsTheSum) {
  std::mt19937 random(13);
  int cuts = 0;
  for (int round = 0; round < 5000; ++round) {
    const auto floor = static_cast<int64_t>(random() % 20), room = static_cast<int64_t>(1 + random() % 300);
    std::vector<int64_t> before(1 + random() % 60);
    for (int64_t& budget : before) budget = floor + static_cast<int64_t>(random() % (random() % 4 == 0 ? 900 : 40));
    const int64_t sum = std::accumulate(before.begin(), before.end(), int64_t{0});
    const int64_t ceiling = std::max(floor + room, sum / static_cast<int64_t>(before.size()) + 1);
    const std::vector<int64_t> after = cut(before, floor, ceiling);
    ASSERT_EQ(std::accumulate(after.begin(), after.end(), int64_t{0}), sum);
    const bool all_at_floor =
        std::all_of(before.begin(), before.end(), [&](int64_t n) { return n == floor || n > ceiling; });
    double low = 1, high = 1e6;
    const auto share = [&](size_t i, double factor) {
      return std::min(static_cast<double>(ceiling),
                      static_cast<double>(floor) + factor * static_cast<double>(before[i] - floor));
    };
    for (int step = 0; step < 200; ++step) {
      const double factor = (low + high) / 2;
      double total = 0;
      for (size_t i = 0; i < before.size(); ++i) total += share(i, factor);
      (total < static_cast<double>(sum) ? low : high) = factor;
    }
    for (size_t i = 0; i < before.size(); ++i) {
      ASSERT_LE(after[i], ceiling);
      ASSERT_GE(after[i], floor);
      cuts += before[i] > ceiling ? 1 : 0;
      if (all_at_floor || high > 1e5) continue;
      ASSERT_LT(std::abs(static_cast<double>(after[i]) - share(i, high)), 1 + 1e-6);
    }
  }
  EXPECT_GT(cuts, 1000);
}

}  // namespace
}  // namespace pkv
