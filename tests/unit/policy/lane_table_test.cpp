// Lane tables: their text, what lies between anchors, and what lanes get by them.
#include "server/policy/lane_table.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "gmock/gmock.h"
#include "tests/support/lane_table.h"

namespace pkv {
namespace {

using ::testing::DoubleNear;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr char kText[] =
    "# made for a test\n"
    "pyramidkv-lane-table 1\n"
    "model 0123456789abcdef\n"
    "layers 2\n"
    "kv_heads 3\n"
    "keep 0.1\n"
    "0 0.5 1\n"
    "# the second layer\n"
    "2 1.5  1\r\n"
    "\n"
    "keep 0.4\n"
    "1 1 1\n"
    "1 0.25 1.75\n";

TEST(LaneTableText, IsRead) {
  const auto table = parse_lane_table(kText);
  ASSERT_TRUE(table.ok()) << table.status();
  EXPECT_EQ(table->model, "0123456789abcdef");
  EXPECT_EQ(table->layers, 2);
  EXPECT_EQ(table->kv_heads, 3);
  ASSERT_EQ(table->anchors.size(), 2u);
  EXPECT_EQ(table->anchors[0].keep, 0.1);
  EXPECT_THAT(table->anchors[0].shares, ElementsAre(0, 0.5, 1, 2, 1.5, 1));
  EXPECT_THAT(table->anchors[1].shares, ElementsAre(1, 1, 1, 1, 0.25, 1.75));
  const auto again = parse_lane_table(format_lane_table(*table));
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(format_lane_table(*again), format_lane_table(*table));
}

std::string replaced(const std::string& from, const std::string& to) {
  std::string text = kText;
  text.replace(text.find(from), from.size(), to);
  return text;
}

TEST(LaneTableText, WhatIsWrongIsSaidWithItsLine) {
  const struct {
    std::string text, error;
  } cases[] = {{"", "line 1: "},
               {"GGUF", "line 1: "},
               {replaced("model", "modell"), "line 3: "},
               {replaced("layers 2", "layers 0"), "line 4: "},
               {replaced("layers 2", "layers 70000"), "line 4: "},
               {replaced("kv_heads 3", "kv_heads x"), "line 5: "},
               {replaced("kv_heads 3", "kv_heads 60000"), "line 5: "},
               {replaced("keep 0.1", "keep 0"), "line 6: "},
               {replaced("keep 0.1", "keep nan"), "line 6: "},
               {replaced("keep 0.4", "keep 0.1"), "line 11: "},
               {replaced("0 0.5 1", "0 0.5"), "line 7: "},
               {replaced("0 0.5 1", "0 0.5 -1"), "line 7: "},
               {replaced("0 0.5 1", "0 0.5 inf"), "line 7: "},
               {replaced("1 0.25 1.75\n", ""), "the shares end"}};
  for (const auto& [text, error] : cases) {
    const auto table = parse_lane_table(text);
    ASSERT_FALSE(table.ok()) << text;
    EXPECT_EQ(table.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(table.status().message()), HasSubstr(error)) << text;
  }
  EXPECT_EQ(read_lane_table("/nowhere/at/all").status().code(), absl::StatusCode::kNotFound);
}

TEST(LaneTableShares, AreLinearInTheLogarithmBetweenAnchors) {
  const auto table = parse_lane_table(kText);
  ASSERT_TRUE(table.ok());
  EXPECT_EQ(table->shares(0.05), table->anchors[0].shares);
  EXPECT_EQ(table->shares(0.1), table->anchors[0].shares);
  EXPECT_EQ(table->shares(1), table->anchors[1].shares);
  const std::vector<double> middle = table->shares(0.2);  // half of the way from 0.1 to 0.4 in logarithms
  EXPECT_THAT(middle[0], DoubleNear(0.5, 1e-12));
  EXPECT_THAT(middle[3], DoubleNear(1.5, 1e-12));
}

// The rule in floating point: shares of a fifth of the mean at least, filled up to the text's length, then rounded.
std::vector<int32_t> plain_budgets(const LaneTable& table, int32_t budget, int32_t tokens, int32_t always,
                                   const LaneGrid& grid) {
  std::vector<double> shares;
  const std::vector<double> of_table = table.shares(static_cast<double>(budget) / tokens);
  for (int32_t layer = 0; layer < grid.layers; ++layer) {
    for (int32_t head = 0; head < grid.kv_heads; ++head) {
      shares.push_back(of_table[static_cast<size_t>(layer * table.kv_heads + head)]);
    }
  }
  const auto normalise = [&] {
    const double sum = std::accumulate(shares.begin(), shares.end(), 0.0);
    for (double& share : shares) share *= static_cast<double>(shares.size()) / sum;
  };
  normalise();
  for (double& share : shares) share = std::max(share, 0.2);
  normalise();
  std::vector<double> above(shares.size());
  std::vector<bool> full(shares.size(), false);
  while (true) {
    double left = static_cast<double>(budget - always) * static_cast<double>(shares.size()), weights = 0;
    for (size_t i = 0; i < shares.size(); ++i) full[i] ? left -= tokens - always : weights += shares[i];
    bool again = false;
    for (size_t i = 0; i < shares.size(); ++i) {
      above[i] = full[i] ? tokens - always : shares[i] * left / weights;
      if (!full[i] && above[i] > tokens - always) full[i] = again = true;
    }
    if (!again) break;
  }
  std::vector<int32_t> lanes;
  int64_t missing = int64_t{budget} * static_cast<int64_t>(shares.size());
  for (const double entries : above) {
    lanes.push_back(always + static_cast<int32_t>(std::floor(entries)));
    missing -= lanes.back();
  }
  std::vector<size_t> order(shares.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return above[a] - std::floor(above[a]) > above[b] - std::floor(above[b]);
  });
  for (int64_t i = 0; i < missing; ++i) ++lanes[order[static_cast<size_t>(i)]];
  return lanes;
}

TEST(LaneTableBudgets, FollowTheRule) {
  std::mt19937 random(5);
  const auto table = test::lane_table();
  int full = 0;
  for (int round = 0; round < 300; ++round) {
    const LaneGrid grid{.layers = 1 + static_cast<int32_t>(random() % 30),
                        .kv_heads = 1 + static_cast<int32_t>(random() % 4)};
    const auto tokens = static_cast<int32_t>(100 + random() % 4000);
    const auto budget = static_cast<int32_t>(41 + random() % static_cast<uint32_t>(tokens - 42));
    const std::vector<int32_t> lanes = table_lane_budgets(*table, budget, tokens, 36, grid);
    EXPECT_EQ(std::accumulate(lanes.begin(), lanes.end(), int64_t{0}),
              int64_t{budget} * static_cast<int64_t>(lanes.size()));
    EXPECT_GE(*std::min_element(lanes.begin(), lanes.end()), 36);
    EXPECT_LE(*std::max_element(lanes.begin(), lanes.end()), tokens);
    EXPECT_EQ(lanes, plain_budgets(*table, budget, tokens, 36, grid)) << round;
    full += std::count(lanes.begin(), lanes.end(), tokens) > 0 ? 1 : 0;
  }
  EXPECT_GT(full, 50);
}

}  // namespace
}  // namespace pkv
