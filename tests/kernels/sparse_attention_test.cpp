// Patterns of sparse attention: what is chosen, how many pairs that leaves, and that a row's result depends neither on
// the rows that are computed with it nor, where everything is seen, on there being a pattern.
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "kernels/reference/reference_backend.h"
#include "tests/kernels/backends_under_test.h"
#include "tests/kernels/case_data.h"

namespace pkv {
namespace {

// ---- choosing

struct Chosen {
  std::vector<float> columns, bands;  // of the first KV head
  std::vector<double> pairs;
};

// Of masses [Hq, n] for one KV head.
Chosen choose(const Matrix& columns, const Matrix& diagonals, int32_t rows, int32_t column_count, int32_t band_count) {
  const std::unique_ptr<Backend> backend = make_reference_backend();
  const auto n = static_cast<int32_t>(columns.cols);
  const CaseTensor column_sums(*backend, columns, Placement::kStrided);
  const CaseTensor diagonal_sums(*backend, diagonals, Placement::kStrided);
  const CaseTensor chosen_columns(*backend, 1, column_count, std::vector<int32_t>(static_cast<size_t>(column_count)));
  const CaseTensor chosen_bands(*backend, 1, band_count, std::vector<int32_t>(static_cast<size_t>(band_count)));
  const Tensor pairs = *backend->allocate(1, 1, DType::kF64);
  backend->choose_pattern({.columns = column_sums.view(), .diagonals = diagonal_sums.view(), .rows = rows},
                          {chosen_columns.view(), chosen_bands.view(), n - rows}, pairs.view());
  Chosen chosen{.pairs = {0}};
  for (const int32_t column : chosen_columns.integers(*backend, "").exact) chosen.columns.push_back(column);
  for (const int32_t band : chosen_bands.integers(*backend, "").exact) chosen.bands.push_back(band);
  backend->fetch({chosen.pairs.data(), pairs.view()});
  return chosen;
}

TEST(ChoosePatternTest, TakesTheHeaviestColumnsOfAllHeadsTogether) {
  Matrix columns(2, 1024), diagonals(2, 1024);
  columns.row(0)[100] = 3;  // 3 in all
  columns.row(0)[500] = 2;
  columns.row(1)[500] = 2;   // 4
  columns.row(1)[3] = 100;   // in block 0, which is seen anyway
  columns.row(1)[980] = 50;  // behind what any row but those that see everything can use
  columns.row(0)[300] = columns.row(0)[200] = 1;
  EXPECT_EQ(choose(columns, diagonals, 64, 3, 2).columns, (std::vector<float>{100, 200, 500}));
}

TEST(ChoosePatternTest, ADistanceBelongsToTheTwoBandsThatItMayLeadTo) {
  Matrix columns(1, 1024), diagonals(1, 1024);
  diagonals.row(0)[1023 - 300] = 1;  // 4 blocks of 64 and 44
  EXPECT_EQ(choose(columns, diagonals, 64, 1, 3).bands, (std::vector<float>{0, 1, 5}));
  EXPECT_EQ(choose(columns, diagonals, 64, 1, 4).bands, (std::vector<float>{0, 1, 4, 5}));
  diagonals.row(0)[1023 - 640] = 0.2f;
  EXPECT_EQ(choose(columns, diagonals, 64, 1, 4).bands, (std::vector<float>{0, 1, 4, 5}));
  EXPECT_EQ(choose(columns, diagonals, 64, 1, 5).bands, (std::vector<float>{0, 1, 4, 5, 10}));
}

// A column that 64 rows attend to lies on 64 diagonals.
TEST(ChoosePatternTest, AColumnIsNotTakenForADistance) {
  constexpr int32_t kRows = 64, kTokens = 1024;
  Matrix columns(1, kTokens), diagonals(1, kTokens);
  const auto add = [&](int32_t row, int32_t slot, float weight) {
    columns.row(0)[slot] += weight;
    diagonals.row(0)[kTokens - 1 - (kTokens - kRows + row - slot)] += weight;
  };
  for (int32_t row = 0; row < kRows; ++row) {
    add(row, 0, 0.5f);
    add(row, 400, 0.3f);
    add(row, kTokens - kRows + row - 320, 0.1f);
  }
  const Chosen chosen = choose(columns, diagonals, kRows, 1, 3);
  EXPECT_EQ(chosen.columns, (std::vector<float>{400}));
  EXPECT_EQ(chosen.bands, (std::vector<float>{0, 1, 5}));
}

TEST(ChoosePatternTest, CountsThePairsThatAreLeft) {
  constexpr int32_t kTokens = 700, kRows = 40;
  std::mt19937 rng(5);
  Matrix columns = random_matrix(rng, 1, kTokens), diagonals = random_matrix(rng, 1, kTokens);
  for (const auto& [column_count, band_count] : {std::pair{20, 3}, {1, 11}, {300, 2}}) {
    const Chosen chosen = choose(columns, diagonals, kRows, column_count, band_count);
    double pairs = 0;
    for (int32_t row = 0; row < kTokens; ++row) {
      for (int32_t slot = 0; slot <= row; ++slot) {
        const bool seen = slot / 64 == 0 || row / 64 >= (kTokens - kRows) / 64 ||
                          std::ranges::count(chosen.bands, static_cast<float>(row / 64 - slot / 64)) > 0 ||
                          std::ranges::count(chosen.columns, static_cast<float>(slot)) > 0;
        pairs += seen ? 1 : 0;
      }
    }
    EXPECT_EQ(chosen.pairs[0], pairs) << column_count << " columns";
  }
}

// ---- attending

constexpr int32_t kKvHeads = 2, kQueryHeads = 6, kHeadDim = 64, kTokens = 900;

class SparseAttentionTest : public testing::Test {
 protected:
  static void SetUpTestSuite() { backends_ = new std::vector<BackendUnderTest>(backends_under_test({2})); }
  static void TearDownTestSuite() {
    delete backends_;
    backends_ = nullptr;
  }

  SparseAttentionTest() : queries_(random_matrix(rng_, kTokens, kQueryHeads * kHeadDim)), cache_(make_cache()) {}

  // Rows [first, first + rows) of the prompt; their out and log-sum-exps.
  std::vector<float> attend(Backend& backend, int32_t first, int32_t rows, const SparsePattern& pattern) {
    for (Lane& lane : cache_.lanes) lane.visible = first + 1;
    const CaseCache cache(backend, cache_);
    const CaseTensor q(backend, queries_, Placement::kDense);
    const CaseTensor out(backend, Matrix(rows, queries_.cols), Placement::kDense);
    const CaseTensor lse(backend, Matrix(rows, kQueryHeads), Placement::kDense);
    const BackendArray<RowSpan> spans(backend, {RowSpan{0, rows, 0}});
    backend.attend({.q = q.view().slice_rows(first, rows),
                    .out = out.view(),
                    .lse = lse.view(),
                    .kv = cache.view(),
                    .spans = row_spans(spans),
                    .q_heads = kQueryHeads,
                    .kv_heads = kKvHeads,
                    .scale = 0.125f,
                    .phase = Phase::kPrefill,
                    .sparse = pattern});
    std::vector<float> both = out.floats(backend, "out").floats;
    const std::vector<float> sums = lse.floats(backend, "lse").floats;
    both.insert(both.end(), sums.begin(), sums.end());
    return both;
  }

  static std::vector<BackendUnderTest>* backends_;

 private:
  CacheContent make_cache() {
    CacheSpec spec{.head_dim = kHeadDim};
    for (int32_t head = 0; head < kKvHeads; ++head) {
      spec.lanes.push_back({.filled = kTokens, .lane = {.length = kTokens, .dtype = KvDtype::kF16}});
    }
    return CacheContent(rng_, std::move(spec));
  }

  std::mt19937 rng_{7};
  Matrix queries_;
  CacheContent cache_;
};

std::vector<BackendUnderTest>* SparseAttentionTest::backends_ = nullptr;

TEST_F(SparseAttentionTest, ARowIsTheSameInEveryDivisionOfThePrompt) {
  for (const BackendUnderTest& tested : *backends_) {
    Backend& backend = *tested.backend;
    const CaseTensor columns(backend, kKvHeads, 4, std::vector<int32_t>{70, 71, 300, 800, 90, 128, 129, 511});
    const CaseTensor bands(backend, kKvHeads, 3, std::vector<int32_t>{0, 1, 4, 0, 1, 7});
    const SparsePattern pattern{columns.view(), bands.view(), 850};
    const std::vector<float> whole = attend(backend, 0, kTokens, pattern);
    for (const int32_t piece : {1, 37, 256}) {
      for (int32_t first = 0; first < kTokens; first += piece * (piece == 1 ? 97 : 1)) {
        const int32_t rows = std::min(piece, kTokens - first);
        const std::vector<float> part = attend(backend, first, rows, pattern);
        const auto outs = static_cast<int64_t>(rows) * kQueryHeads * kHeadDim;
        EXPECT_TRUE(std::equal(part.begin(), part.begin() + outs,
                               whole.begin() + static_cast<int64_t>(first) * kQueryHeads * kHeadDim))
            << tested.name << " rows from " << first << " in " << piece << "s";
        EXPECT_TRUE(std::equal(
            part.begin() + outs, part.end(),
            whole.begin() + static_cast<int64_t>(kTokens) * kQueryHeads * kHeadDim + int64_t{first} * kQueryHeads))
            << tested.name << " log-sum-exps from " << first << " in " << piece << "s";
      }
    }
  }
}

TEST_F(SparseAttentionTest, WhereEverythingIsSeenTheBitsAreThoseWithoutAPattern) {
  constexpr int32_t kBlocks = (kTokens + kSparseBlock - 1) / kSparseBlock;
  std::vector<int32_t> all;
  for (int32_t i = 0; i < kKvHeads * kBlocks; ++i) all.push_back(i % kBlocks);
  for (const BackendUnderTest& tested : *backends_) {
    Backend& backend = *tested.backend;
    const CaseTensor columns(backend, kKvHeads, 1, std::vector<int32_t>{70, 300});
    const CaseTensor bands(backend, kKvHeads, kBlocks, all);
    EXPECT_EQ(attend(backend, 0, kTokens, {columns.view(), bands.view(), kTokens}), attend(backend, 0, kTokens, {}))
        << tested.name;
  }
}

}  // namespace
}  // namespace pkv
