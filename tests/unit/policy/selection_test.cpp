// Which entries a window policy keeps: golden selections of every pooling and group reduction, plateaus, one loud
// token.
#include <numeric>

#include "gmock/gmock.h"
#include "kernels/reference/reference_backend.h"
#include "tests/unit/policy/policy_specs.h"
#include "tests/unit/policy/prompt_run.h"

namespace pkv {
namespace {

using ::testing::ElementsAre;

struct SelectionCase {
  PoolKind pooling;
  int32_t kernel;
  GroupReduce aggregation;
  int32_t budget;
  std::vector<int32_t> kept;
  double recall;
};

#include "tests/unit/policy/selection_cases.inc"

constexpr CacheGeometry kOneHead{.layers = 1, .kv_heads = 1, .head_dim = kDims, .page_bytes = 64};

class SelectionTest : public ::testing::Test {
 protected:
  SelectionTest() {
    auto cache = KvCache::create(*backend_, kOneHead, 64 * 1024);
    EXPECT_TRUE(cache.ok());
    cache_ = *std::move(cache);
  }

  LayerOutcome run(const PolicySpec& spec, const LayerRows& rows, int32_t q_heads) {
    const auto policy = policy_of(spec);
    const auto tokens = static_cast<int32_t>(rows.k.size()) / kDims;
    PromptRun prompt(*backend_, *cache_, *policy,
                     {.geometry = kOneHead, .q_heads = q_heads, .prompt_tokens = tokens, .record_positions = true});
    LayerOutcome outcome = prompt.run_layer(0, rows, 7);
    EXPECT_EQ(cache_->positions(prompt.sequence(), 0, 0), outcome.kept_positions[0]);
    cache_->close(prompt.sequence());
    return outcome;
  }

  std::unique_ptr<Backend> backend_ = make_reference_backend();
  std::unique_ptr<KvCache> cache_;
};

// The keys and the queries of both query heads side by side.
LayerRows golden_rows() {
  LayerRows rows;
  rows.k.assign(std::begin(kKeys), std::end(kKeys));
  rows.v = rows.k;
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
      const LayerOutcome outcome = run(spec, golden_rows(), 2);
      EXPECT_EQ(outcome.kept_positions[0], golden.kept)
          << "kernel " << golden.kernel << " pooling " << static_cast<int>(golden.pooling) << " reduce "
          << static_cast<int>(golden.aggregation) << " B " << golden.budget;
      EXPECT_NEAR(outcome.recall[0], golden.recall, 1e-6);
      EXPECT_THAT(outcome.kept, ElementsAre(golden.budget));
      EXPECT_EQ(outcome.budget_tokens, golden.budget);
    }
  }
}

TEST_F(SelectionTest, MassIsTheGoldenWindowScore) {
  for (int32_t head = 0; head < 2; ++head) {
    LayerRows rows = golden_rows();
    rows.q.assign(head == 0 ? std::begin(kFirstQueries) : std::begin(kSecondQueries),
                  head == 0 ? std::end(kFirstQueries) : std::end(kSecondQueries));
    const double* mass = head == 0 ? kFirstMass : kSecondMass;
    PolicySpec spec = spec_of(PolicyKind::kSnapKv, kWindow + 1);
    spec.params.window_tokens = kWindow;
    spec.params.kernel_size = 1;
    // The recall of window and best column is their share of the mass: one number made of the whole vector.
    const LayerOutcome outcome = run(spec, rows, 1);
    double carried = 0;
    for (int32_t column : outcome.kept_positions[0]) carried += mass[column];
    EXPECT_EQ(outcome.kept_positions[0][0], std::max_element(mass, mass + kTokens - kWindow) - mass);
    EXPECT_NEAR(outcome.recall[0], carried / std::accumulate(mass, mass + kTokens, 0.0), 1e-6);
  }
}

// Every key is zero but one, which all queries point at.
LayerRows one_loud_token(int32_t tokens, int32_t loud) {
  LayerRows rows;
  rows.k.assign(static_cast<size_t>(tokens) * kDims, 0.0f);
  rows.v = rows.k;
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
  const LayerOutcome outcome = run(spec, one_loud_token(60, 33), 1);
  EXPECT_EQ(outcome.kept_positions[0], with_window({33}, 60, 8));
  EXPECT_NEAR(outcome.recall[0], 1.0, 1e-6);
}

TEST_F(SelectionTest, PoolingKeepsThreeNeighboursOnEitherSide) {
  for (PoolKind pooling : {PoolKind::kMax, PoolKind::kAvg}) {
    PolicySpec spec = spec_of(PolicyKind::kSnapKv, 15);
    spec.params.pooling = pooling;
    EXPECT_EQ(run(spec, one_loud_token(60, 33), 1).kept_positions[0], with_window({30, 31, 32, 33, 34, 35, 36}, 60, 8));
  }
  // Off the window's edge, pooling does not reach: columns from 52 on are not ranked.
  EXPECT_EQ(run(spec_of(PolicyKind::kSnapKv, 12), one_loud_token(60, 51), 1).kept_positions[0],
            with_window({48, 49, 50, 51}, 60, 8));
  EXPECT_EQ(run(spec_of(PolicyKind::kSnapKv, 12), one_loud_token(60, 0), 1).kept_positions[0],
            with_window({0, 1, 2, 3}, 60, 8));
}

TEST_F(SelectionTest, TheWindowsOwnScoresDoNotReachIntoThePast) {
  // A loud token inside the window would lift the columns 49 to 51 if pooling ran over all columns.
  EXPECT_EQ(run(spec_of(PolicyKind::kSnapKv, 10), one_loud_token(60, 52), 1).kept_positions[0],
            with_window({0, 1}, 60, 8));
}

TEST_F(SelectionTest, SmallerPositionsWinTies) {
  // Plateau 30 to 36, of which the budget takes four; then all-equal scores.
  EXPECT_EQ(run(spec_of(PolicyKind::kSnapKv, 12), one_loud_token(60, 33), 1).kept_positions[0],
            with_window({30, 31, 32, 33}, 60, 8));
  LayerRows silent = one_loud_token(60, 33);
  std::fill(silent.k.begin(), silent.k.end(), 0.0f);
  EXPECT_EQ(run(spec_of(PolicyKind::kSnapKv, 13), silent, 1).kept_positions[0], with_window({0, 1, 2, 3, 4}, 60, 8));
}

}  // namespace
}  // namespace pkv
