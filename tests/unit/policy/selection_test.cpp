// Which entries a window policy's scores choose: golden selections of every pooling and group reduction, plateaus, one
// loud token.
#include <numeric>

#include "gmock/gmock.h"
#include "tests/support/tested_backend.h"
#include "tests/unit/policy/policy_specs.h"
#include "tests/unit/policy/scored_layer.h"

namespace pkv {
namespace {

struct SelectionCase {
  PoolKind pooling;
  int32_t kernel;
  GroupReduce aggregation;
  int32_t budget;
  std::vector<int32_t> kept;
  double recall;
};

#include "tests/unit/policy/selection_cases.inc"

struct Outcome {
  std::vector<int32_t> kept;
  double recall = 0;
};

class SelectionTest : public ::testing::Test {
 protected:
  // What the one KV head keeps.
  Outcome run(const PolicySpec& spec, const LayerInput& input) {
    const Scored scored = ScoredLayer(*backend_, input).score(*policy_of(spec));
    const auto budget = static_cast<int32_t>(spec.budget.tokens);
    const std::vector<int32_t> kept = best_entries(scored.scores[0], budget, spec.params.window_tokens, 0);
    return {kept, recall_of(scored.mass[0], kept)};
  }

  std::unique_ptr<Backend> backend_ = test::make_tested_backend();
};

// The keys and the queries of both query heads side by side.
LayerInput golden_rows() {
  LayerInput rows{.tokens = kTokens, .q_heads = 2, .kv_heads = 1, .head_dim = kDims};
  rows.k.assign(std::begin(kKeys), std::end(kKeys));
  for (int32_t row = 0; row < kTokens; ++row) {
    rows.q.insert(rows.q.end(), kFirstQueries + row * kDims, kFirstQueries + (row + 1) * kDims);
    rows.q.insert(rows.q.end(), kSecondQueries + row * kDims, kSecondQueries + (row + 1) * kDims);
  }
  return rows;
}

TEST_F(SelectionTest, EqualsTheGoldenSelections) {
  for (const SelectionCase& golden : kSelectionCases) {
    for (PolicyKind kind : {PolicyKind::kSnapKv, PolicyKind::kPyramidKv}) {  // one layer: the same
      PolicySpec spec = spec_of(kind, golden.budget);
      spec.params.window_tokens = kWindow;
      spec.params.kernel_size = golden.kernel;
      spec.params.pooling = golden.pooling;
      spec.params.group_aggregation = golden.aggregation;
      const Outcome outcome = run(spec, golden_rows());
      EXPECT_EQ(outcome.kept, golden.kept)
          << "kernel " << golden.kernel << " pooling " << static_cast<int>(golden.pooling) << " reduce "
          << static_cast<int>(golden.aggregation) << " B " << golden.budget;
      EXPECT_NEAR(outcome.recall, golden.recall, 1e-6);
    }
  }
}

TEST_F(SelectionTest, MassIsTheGoldenWindowScore) {
  for (int32_t head = 0; head < 2; ++head) {
    LayerInput rows = golden_rows();
    rows.q_heads = 1;
    rows.q.assign(head == 0 ? std::begin(kFirstQueries) : std::begin(kSecondQueries),
                  head == 0 ? std::end(kFirstQueries) : std::end(kSecondQueries));
    PolicySpec spec = spec_of(PolicyKind::kSnapKv, kWindow + 1);
    spec.params.window_tokens = kWindow;
    const Scored scored = ScoredLayer(*backend_, rows).score(*policy_of(spec));
    const double* mass = head == 0 ? kFirstMass : kSecondMass;
    for (int32_t slot = 0; slot < kTokens; ++slot) {
      EXPECT_NEAR(scored.mass[0][static_cast<size_t>(slot)], mass[slot], 1e-6) << slot;
    }
  }
}

// Every key is zero but one, which all queries point at.
LayerInput one_loud_token(int32_t tokens, int32_t loud) {
  LayerInput rows{.tokens = tokens, .q_heads = 1, .kv_heads = 1, .head_dim = kDims};
  rows.k.assign(static_cast<size_t>(tokens) * kDims, 0.0f);
  rows.k[static_cast<size_t>(loud) * kDims] = 10.0f;
  rows.q.assign(static_cast<size_t>(tokens) * kDims, 0.0f);
  for (size_t row = 0; row < static_cast<size_t>(tokens); ++row) rows.q[row * kDims] = 10.0f;
  return rows;
}

std::vector<int32_t> with_window(std::vector<int32_t> kept, int32_t tokens, int32_t window) {
  for (int32_t column = tokens - window; column < tokens; ++column) kept.push_back(column);
  return kept;
}

TEST_F(SelectionTest, OneLoudTokenIsKeptAlone) {
  PolicySpec spec = spec_of(PolicyKind::kSnapKv, 9);
  spec.params.kernel_size = 1;
  const Outcome outcome = run(spec, one_loud_token(60, 33));
  EXPECT_EQ(outcome.kept, with_window({33}, 60, 8));
  EXPECT_NEAR(outcome.recall, 1.0, 1e-6);
}

TEST_F(SelectionTest, PoolingKeepsThreeNeighboursOnEitherSide) {
  for (PoolKind pooling : {PoolKind::kMax, PoolKind::kAvg}) {
    PolicySpec spec = spec_of(PolicyKind::kSnapKv, 15);
    spec.params.pooling = pooling;
    EXPECT_EQ(run(spec, one_loud_token(60, 33)).kept, with_window({30, 31, 32, 33, 34, 35, 36}, 60, 8));
  }
  // Off the window's edge, pooling does not reach: columns from 52 on are not ranked.
  EXPECT_EQ(run(spec_of(PolicyKind::kSnapKv, 12), one_loud_token(60, 51)).kept, with_window({48, 49, 50, 51}, 60, 8));
  EXPECT_EQ(run(spec_of(PolicyKind::kSnapKv, 12), one_loud_token(60, 0)).kept, with_window({0, 1, 2, 3}, 60, 8));
}

TEST_F(SelectionTest, TheWindowsOwnScoresDoNotReachIntoThePast) {
  // A loud token inside the window would lift the columns 49 to 51 if pooling ran over all columns.
  EXPECT_EQ(run(spec_of(PolicyKind::kSnapKv, 10), one_loud_token(60, 52)).kept, with_window({0, 1}, 60, 8));
}

TEST_F(SelectionTest, SmallerPositionsWinTies) {
  // Plateau 30 to 36, of which the budget takes four; then all-equal scores.
  EXPECT_EQ(run(spec_of(PolicyKind::kSnapKv, 12), one_loud_token(60, 33)).kept, with_window({30, 31, 32, 33}, 60, 8));
  LayerInput silent = one_loud_token(60, 33);
  std::fill(silent.k.begin(), silent.k.end(), 0.0f);
  EXPECT_EQ(run(spec_of(PolicyKind::kSnapKv, 13), silent).kept, with_window({0, 1, 2, 3, 4}, 60, 8));
}

}  // namespace
}  // namespace pkv
