// The oracle against values worked out by hand or by a formula written down another way: what the conformance test
// cannot check.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "kernels/reference/reference_backend.h"
#include "tests/kernels/case_data.h"

namespace pkv {
namespace {

using testing::ElementsAre;
using testing::FloatNear;
using testing::Pointwise;

class ReferenceTest : public testing::Test {
 protected:
  CaseTensor tensor(int64_t rows, int64_t cols, std::vector<float> values) {
    Matrix matrix(rows, cols);
    matrix.values = std::move(values);
    return CaseTensor(backend_, matrix, Placement::kDense);
  }
  std::vector<float> values(const CaseTensor& of) { return of.floats(backend_, "").floats; }

  ReferenceBackend backend_;
};

TEST_F(ReferenceTest, LinearAndEmbed) {
  const float rows[] = {1, 2, 3, 4, 5, 6};  // two outputs of three inputs
  auto weight = backend_.prepare_weight({.data = rows, .type = WeightType::kF32, .rows = 2, .cols = 3});
  ASSERT_TRUE(weight.ok());
  const CaseTensor x = tensor(2, 3, {1, 0, -1, 2, 2, 2});
  const CaseTensor out = tensor(2, 2, {100, 200, 300, 400});
  backend_.linear(x.view(), **weight, true, Phase::kDecode, out.view());
  EXPECT_THAT(values(out), ElementsAre(98, 198, 312, 430));
  backend_.linear(x.view(), **weight, false, Phase::kPrefill, out.view());
  EXPECT_THAT(values(out), ElementsAre(-2, -2, 12, 30));
  const CaseTensor embedded = tensor(2, 3, {0, 0, 0, 0, 0, 0});
  backend_.embed(**weight, BackendArray<int32_t>(backend_, {1, 0}).data(), embedded.view());
  EXPECT_THAT(values(embedded), ElementsAre(4, 5, 6, 1, 2, 3));
}

TEST_F(ReferenceTest, RmsNormSiluAndBias) {
  const CaseTensor x = tensor(1, 2, {3, 4}), gain = tensor(1, 2, {1, 10}), out = tensor(1, 2, {0, 0});
  backend_.rms_norm(x.view(), gain.view(), 12.5f, out.view());  // mean square 12.5, with eps 25
  EXPECT_THAT(values(out), Pointwise(FloatNear(1e-6f), {0.6f, 8.0f}));
  const CaseTensor gate = tensor(1, 2, {0, std::log(3.0f)}), up = tensor(1, 2, {7, 2});
  backend_.silu_mul(gate.view(), up.view());  // sigmoid(log 3) = 3/4
  EXPECT_THAT(values(gate), Pointwise(FloatNear(1e-6f), {0.0f, 1.5f * std::log(3.0f)}));
  backend_.add_bias(x.view(), gain.view());
  EXPECT_THAT(values(x), ElementsAre(4, 14));
}

TEST_F(ReferenceTest, RopeTurnsPairsByTheAngle) {
  const float quarter = static_cast<float>(M_PI / 2);
  const std::vector<float> inv_freq = {quarter, 0.0f};
  const CaseTensor adjacent = tensor(1, 6, {1, 2, 3, 4, 5, 6}), halves = tensor(1, 6, {1, 2, 3, 4, 5, 6});
  const std::vector<int32_t> positions = {1};
  backend_.rope(adjacent.view(), positions.data(),
                {.inv_freq = inv_freq.data(), .pairs = 2, .pairing = RopePairing::kAdjacent, .head_dim = 6});
  EXPECT_THAT(values(adjacent), Pointwise(FloatNear(1e-6f), {-2.0f, 1.0f, 3.0f, 4.0f, 5.0f, 6.0f}));
  backend_.rope(halves.view(), positions.data(),
                {.inv_freq = inv_freq.data(), .pairs = 2, .pairing = RopePairing::kHalves, .head_dim = 6});
  EXPECT_THAT(values(halves), Pointwise(FloatNear(1e-6f), {-3.0f, 2.0f, 1.0f, 4.0f, 5.0f, 6.0f}));
}

// A rotated query's product with a rotated key depends on the difference of their positions alone.
TEST_F(ReferenceTest, RopeIsRelative) {
  std::mt19937 rng(5);
  const Matrix q = random_matrix(rng, 1, 64), k = random_matrix(rng, 1, 64);
  std::vector<float> inv_freq;
  for (int i = 0; i < 32; ++i) inv_freq.push_back(static_cast<float>(std::pow(1e4, -i / 32.0)));
  const auto product = [&](int32_t q_position, int32_t k_position) {
    const CaseTensor a(backend_, q, Placement::kDense), b(backend_, k, Placement::kDense);
    const RopeSpec spec{.inv_freq = inv_freq.data(), .pairs = 32, .head_dim = 64};
    backend_.rope(a.view(), &q_position, spec);
    backend_.rope(b.view(), &k_position, spec);
    return reference_dot(a.view().f32(), b.view().f32(), 64);
  };
  EXPECT_NEAR(product(17, 5), product(112, 100), 1e-3);
  EXPECT_GT(std::abs(product(17, 5) - product(17, 6)), 1e-2);
}

// One lane, head size 2, f32, pages of two slots (32 bytes) in the order 1, 0.
class ReferenceCacheTest : public ReferenceTest {
 protected:
  KvView view() {
    return {.pool = reinterpret_cast<std::byte*>(pool_.data()),
            .positions = positions_.data(),
            .page_ids = pages_.data(),
            .lanes = &lane_,
            .lane_count = 1,
            .page_bytes = 32,
            .position_stride = 4,
            .head_dim = 2};
  }
  RowSpans spans(const RowSpan& span) {
    span_ = span;
    return {&span_, 1};
  }
  // Writes the three entries of the test: keys (0,0), (log 2, 0), (0, log 5); values (1, 0), (0, 1), (10, 10).
  void write_three() {
    const CaseTensor k = tensor(3, 2, {0, 0, std::log(2.0f), 0, 0, std::log(5.0f)});
    const CaseTensor v = tensor(3, 2, {1, 0, 0, 1, 10, 10});
    backend_.write_kv(k.view(), v.view(), BackendArray<int32_t>(backend_, {40, 41, 42}).data(), view(),
                      spans({0, 3, 0}), 1);
  }
  std::vector<float> pool_ = std::vector<float>(16, -1.0f);
  std::vector<int32_t> positions_ = std::vector<int32_t>(8, -1);
  std::vector<int32_t> pages_ = {1, 0};
  RowSpan span_;
  Lane lane_ = {.length = 3, .write_slot = 0, .visible = 1, .dtype = KvDtype::kF32};
};

TEST_F(ReferenceCacheTest, WritesKeysByDimensionAndValuesBySlot) {
  write_three();
  const float log2 = std::log(2.0f), log5 = std::log(5.0f);
  EXPECT_THAT(pool_, ElementsAre(0, -1, log5, -1, 10, 10, -1, -1,  // page 0: slot 2
                                 0, log2, 0, 0, 1, 0, 0, 1));      // page 1: slots 0 and 1
  EXPECT_THAT(positions_, ElementsAre(42, -1, -1, -1, 40, 41, -1, -1));
}

TEST_F(ReferenceCacheTest, AttendIsCausalSoftmax) {
  write_three();
  const CaseTensor q = tensor(3, 2, {1, 1, 1, 1, 1, 1}), out = tensor(3, 2, {0, 0, 0, 0, 0, 0}),
                   lse = tensor(3, 1, {0, 0, 0});
  backend_.attend({.q = q.view(),
                   .out = out.view(),
                   .lse = lse.view(),
                   .kv = view(),
                   .spans = spans({0, 3, 0}),
                   .q_heads = 1,
                   .kv_heads = 1,
                   .scale = 1});
  // Weights 1; 1, 2 of 3; 1, 2, 5 of 8.
  EXPECT_THAT(values(out), Pointwise(FloatNear(1e-6f), {1.0f, 0.0f, 1 / 3.0f, 2 / 3.0f, 51 / 8.0f, 52 / 8.0f}));
  EXPECT_THAT(values(lse), Pointwise(FloatNear(1e-6f), {0.0f, std::log(3.0f), std::log(8.0f)}));
}

TEST_F(ReferenceCacheTest, ObservationSumsAttentionMass) {
  write_three();
  const CaseTensor q = tensor(2, 2, {1, 1, 1, 1}), lse = tensor(2, 1, {0, 0});
  const CaseTensor sums = tensor(1, 4, {1, 0, 0, 9}), squares = tensor(1, 4, {0, 0, 0, 9});
  const ObserveArgs args{.q = q.view(), .kv = view(), .unseen = 1, .q_heads = 1, .kv_heads = 1, .scale = 1};
  backend_.row_lse(args, lse.view());
  EXPECT_THAT(values(lse), Pointwise(FloatNear(1e-6f), {std::log(3.0f), std::log(8.0f)}));
  backend_.column_mass(args, lse.view(), sums.view(), squares.view());
  EXPECT_THAT(values(sums),
              Pointwise(FloatNear(1e-6f), {1 + 1 / 3.0f + 1 / 8.0f, 2 / 3.0f + 2 / 8.0f, 5 / 8.0f, 9.0f}));
  EXPECT_THAT(values(squares),
              Pointwise(FloatNear(1e-6f), {1 / 9.0f + 1 / 64.0f, 4 / 9.0f + 4 / 64.0f, 25 / 64.0f, 9.0f}));
}

TEST_F(ReferenceCacheTest, OverwritesTheFrontOfALongerLane) {
  write_three();
  const CaseTensor k = tensor(2, 2, {21, 22, 23, 24}), v = tensor(2, 2, {31, 32, 33, 34});
  backend_.write_kv(k.view(), v.view(), BackendArray<int32_t>(backend_, {7, 8}).data(), view(), spans({0, 2, 0}), 1);
  EXPECT_THAT(pool_, ElementsAre(0, -1, std::log(5.0f), -1, 10, 10, -1, -1,  // slot 2 as it was
                                 21, 23, 22, 24, 31, 32, 33, 34));
  EXPECT_THAT(positions_, ElementsAre(42, -1, -1, -1, 7, 8, -1, -1));
}

TEST_F(ReferenceCacheTest, GatherMovesEntriesAndPositions) {
  write_three();
  const CaseTensor kept(backend_, 1, 2, std::vector<int32_t>{0, 2});
  const CaseTensor counts(backend_, 1, 1, std::vector<int32_t>{2});
  backend_.gather(view(), 0, kept.view(), counts.view(), 0);
  EXPECT_EQ(pool_[8 + 1], 0.0f);            // slot 1, key dimension 0
  EXPECT_EQ(pool_[8 + 3], std::log(5.0f));  // slot 1, key dimension 1
  EXPECT_EQ(pool_[8 + 6], 10.0f);
  EXPECT_EQ(positions_[4 + 0], 40);
  EXPECT_EQ(positions_[4 + 1], 42);
}

TEST_F(ReferenceCacheTest, GatherInPlaceInAnyOrder) {
  write_three();
  const CaseTensor kept(backend_, 1, 3, std::vector<int32_t>{1, 2, 0});
  const CaseTensor counts(backend_, 1, 1, std::vector<int32_t>{3});
  backend_.gather(view(), 0, kept.view(), counts.view(), 0);
  const float log2 = std::log(2.0f), log5 = std::log(5.0f);
  EXPECT_THAT(pool_, ElementsAre(0, -1, 0, -1, 1, 0, -1, -1,        // slot 2: entry 0
                                 log2, 0, 0, log5, 0, 1, 10, 10));  // slots 0 and 1: entries 1 and 2
  EXPECT_THAT(positions_, ElementsAre(40, -1, -1, -1, 41, 42, -1, -1));
}

TEST_F(ReferenceCacheTest, GatherIntoAnotherLane) {
  write_three();
  pool_.resize(24, -1.0f);
  positions_.resize(12, -1);
  pages_.push_back(2);
  Lane lanes[] = {lane_, {.first_page = 2, .length = 0, .dtype = KvDtype::kF32}};
  KvView kv = view();
  kv.lanes = lanes;
  kv.lane_count = 2;
  const std::vector<float> before(pool_.begin(), pool_.begin() + 16);
  const CaseTensor kept(backend_, 1, 2, std::vector<int32_t>{2, 1});
  const CaseTensor counts(backend_, 1, 1, std::vector<int32_t>{2});
  backend_.gather(kv, 0, kept.view(), counts.view(), 1);
  EXPECT_EQ(std::vector<float>(pool_.begin(), pool_.begin() + 16), before);
  EXPECT_THAT(std::vector<float>(pool_.begin() + 16, pool_.end()),
              ElementsAre(0, std::log(2.0f), std::log(5.0f), 0, 10, 10, 0, 1));
  EXPECT_THAT(positions_, ElementsAre(42, -1, -1, -1, 40, 41, -1, -1, 42, 41, -1, -1));
}

// Overwrites the keys: (3, 4), (0, 0), (0, 2).
TEST_F(ReferenceCacheTest, NormsAndSimilarityOfKeys) {
  const CaseTensor k = tensor(3, 2, {3, 4, 0, 0, 0, 2});
  backend_.write_kv(k.view(), k.view(), BackendArray<int32_t>(backend_, {0, 1, 2}).data(), view(), spans({0, 3, 0}), 1);
  const CaseTensor norms = tensor(1, 3, {9, 9, 9}), sums = tensor(1, 2, {9, 9}), cosines = tensor(1, 3, {9, 9, 9});
  backend_.key_norms(view(), 0, norms.view());
  EXPECT_THAT(values(norms), ElementsAre(5, 0, 2));
  backend_.key_similarity(view(), 0, sums.view(), cosines.view());
  EXPECT_THAT(values(sums), Pointwise(FloatNear(1e-6f), {0.6f, 1.8f}));  // (0.6, 0.8) + (0, 1)
  // |(0.6, 1.8)| = sqrt(3.6); products with the unit keys 0.36 + 1.44 = 1.8 and 1.8.
  const float cosine = 1.8f / std::sqrt(3.6f);
  EXPECT_THAT(values(cosines), Pointwise(FloatNear(1e-6f), {cosine, 0.0f, cosine}));
}

TEST_F(ReferenceCacheTest, SimilarityIsZeroWhereKeysCancel) {
  const CaseTensor k = tensor(3, 2, {3, 4, -6, -8, 0, 0});
  backend_.write_kv(k.view(), k.view(), BackendArray<int32_t>(backend_, {0, 1, 2}).data(), view(), spans({0, 3, 0}), 1);
  const CaseTensor sums = tensor(1, 2, {9, 9}), cosines = tensor(1, 3, {9, 9, 9});
  backend_.key_similarity(view(), 0, sums.view(), cosines.view());
  EXPECT_THAT(values(sums), ElementsAre(0, 0));
  EXPECT_THAT(values(cosines), ElementsAre(0, 0, 0));
}

// A third of a right angle a position, three positions: (x, y) becomes (-y, x); back again by -3.
TEST_F(ReferenceCacheTest, TurnsKeysFromASlotOn) {
  write_three();
  const CaseTensor k = tensor(3, 2, {1, 2, 3, 4, 5, 6});
  backend_.write_kv(k.view(), k.view(), BackendArray<int32_t>(backend_, {40, 41, 42}).data(), view(), spans({0, 3, 0}),
                    1);
  const std::vector<float> inv_freq = {static_cast<float>(M_PI / 6)};
  const RopeSpec spec{.inv_freq = inv_freq.data(), .pairs = 1, .head_dim = 2, .magnitude = 7.0f};
  backend_.turn_keys(view(), 0, 1, 1, 3, spec);
  EXPECT_THAT(pool_, Pointwise(FloatNear(1e-5f), {-6.0f, -1.0f, 5.0f, -1.0f, 5.0f, 6.0f, -1.0f, -1.0f,  //
                                                  1.0f, -4.0f, 2.0f, 3.0f, 1.0f, 2.0f, 3.0f, 4.0f}));
  EXPECT_THAT(positions_, ElementsAre(42, -1, -1, -1, 40, 41, -1, -1));
  backend_.turn_keys(view(), 0, 1, 1, -3, spec);
  EXPECT_THAT(pool_, Pointwise(FloatNear(1e-5f), {5.0f, -1.0f, 6.0f, -1.0f, 5.0f, 6.0f, -1.0f, -1.0f,  //
                                                  1.0f, 3.0f, 2.0f, 4.0f, 1.0f, 2.0f, 3.0f, 4.0f}));
}

TEST_F(ReferenceTest, ReducePoolAndSelect) {
  const CaseTensor sums = tensor(4, 3, {1, 2, 3, 3, 0, 5, 0, 0, 0, 8, 4, 2}),
                   reduced = tensor(2, 3, {0, 0, 0, 0, 0, 0});
  backend_.reduce_groups(sums.view(), GroupReduce::kMean, reduced.view());
  EXPECT_THAT(values(reduced), ElementsAre(2, 1, 4, 4, 2, 1));
  backend_.reduce_groups(sums.view(), GroupReduce::kMax, reduced.view());
  EXPECT_THAT(values(reduced), ElementsAre(3, 2, 5, 8, 4, 2));
  backend_.reduce_groups(sums.view(), GroupReduce::kSum, reduced.view());
  EXPECT_THAT(values(reduced), ElementsAre(4, 2, 8, 8, 4, 2));
  const CaseTensor scores = tensor(1, 5, {3, 0, 6, 0, 0}), pooled = tensor(1, 5, {0, 0, 0, 0, 0});
  backend_.pool_scores(scores.view(), PoolKind::kAvg, 3, pooled.view());
  EXPECT_THAT(values(pooled), ElementsAre(1, 3, 2, 2, 0));  // zeros beyond the ends count
  backend_.pool_scores(scores.view(), PoolKind::kMax, 3, pooled.view());
  EXPECT_THAT(values(pooled), ElementsAre(3, 6, 6, 6, 0));
  const CaseTensor kept(backend_, 1, 2, std::vector<int32_t>{-1, -1}), counts(backend_, 1, 1, std::vector<int32_t>{2});
  backend_.select_top(pooled.view(), 0, counts.view(), kept.view());
  EXPECT_THAT(kept.integers(backend_, "").exact, ElementsAre(1, 2));  // of three sixes the first two
}

// Rotations add up; the magnitude, here 2, is not multiplied in again.
TEST_F(ReferenceTest, TurnedRowsStandAtAnotherPosition) {
  const BackendArray<float> inv_freq(backend_, {0.25f, 0.01f});
  const RopeSpec spec{
      .inv_freq = inv_freq.data(), .pairs = 2, .pairing = RopePairing::kHalves, .head_dim = 5, .magnitude = 2.0f};
  const std::vector<float> rows = {1, 2, 3, 4, 5, -1, 0, 2, 1, 7};
  const CaseTensor turned = tensor(2, 5, rows), direct = tensor(2, 5, rows);
  backend_.rope(turned.view(), BackendArray<int32_t>(backend_, {3, 40}).data(), spec);
  backend_.turn_rows(turned.view(), 100, spec);
  backend_.rope(direct.view(), BackendArray<int32_t>(backend_, {103, 140}).data(), spec);
  EXPECT_THAT(values(turned), Pointwise(FloatNear(2e-5f), values(direct)));
  backend_.turn_rows(turned.view(), -100, spec);
  const CaseTensor before = tensor(2, 5, rows);
  backend_.rope(before.view(), BackendArray<int32_t>(backend_, {3, 40}).data(), spec);
  EXPECT_THAT(values(turned), Pointwise(FloatNear(2e-5f), values(before)));
}

TEST_F(ReferenceTest, SelectionKeepsTheWindowUnseen) {
  const CaseTensor scores = tensor(2, 6, {5, 1, 4, 1, 9, 9, 0, 0, 7, 0, -1, 9});
  const CaseTensor counts(backend_, 1, 2, std::vector<int32_t>{4, 3});
  const CaseTensor kept(backend_, 2, 4, std::vector<int32_t>(8, -1));
  backend_.select_top(scores.view(), 2, counts.view(), kept.view());
  EXPECT_THAT(kept.integers(backend_, "").exact, ElementsAre(0, 2, 4, 5, 2, 4, 5, -1));
}

TEST_F(ReferenceTest, LanesShareALayer) {
  // Window 1: the last column is never looked at. The best of all: 9, 8, 7, 7 (lane 0 first), 6, 5.
  const CaseTensor scores = tensor(2, 5, {9, 7, 6, 5, 0, 8, 1, 2, 7, 99});
  const CaseTensor counts(backend_, 1, 2, std::vector<int32_t>{-1, -1});
  const auto share = [&](int32_t smallest, int32_t largest, int64_t total) {
    backend_.share_layer(scores.view(),
                         {.window = 1, .smallest_lane = smallest, .largest_lane = largest, .total = total},
                         counts.view());
    return counts.integers(backend_, "").exact;
  };
  EXPECT_THAT(share(1, 5, 2), ElementsAre(1, 1));
  EXPECT_THAT(share(1, 5, 3), ElementsAre(2, 1));
  EXPECT_THAT(share(1, 5, 5), ElementsAre(3, 2));
  EXPECT_THAT(share(1, 5, 6), ElementsAre(3, 3));
  EXPECT_THAT(share(1, 5, 8), ElementsAre(5, 3));
  EXPECT_THAT(share(1, 3, 6), ElementsAre(3, 3));
  EXPECT_THAT(share(1, 3, 9), ElementsAre(3, 3));  // both have as many as one may
  EXPECT_THAT(share(1, 4, 8), ElementsAre(4, 4));
  EXPECT_THAT(share(3, 5, 6), ElementsAre(3, 3));
  EXPECT_THAT(share(3, 5, 7), ElementsAre(4, 3));
}

TEST_F(ReferenceTest, RecallOfWhatIsKept) {
  const CaseTensor mass = tensor(2, 4, {1, 2, 4, 1, 0, 3, 0, 1});
  const CaseTensor scores = tensor(2, 4, {1, 2, 4, 0, 9, INFINITY, 0, 5});
  const CaseTensor counts(backend_, 1, 2, std::vector<int32_t>{0, 0});
  const Tensor recalls = *backend_.allocate(1, 2, DType::kF64);
  const auto needed = [&](double recall, int32_t largest) {
    backend_.count_for_recall(scores.view(), mass.view(), {.window = 1, .largest_lane = largest, .recall = recall},
                              counts.view(), recalls.view());
    return counts.integers(backend_, "").exact;
  };
  const auto recall = [&](int64_t lane) { return recalls.view().f64()[lane]; };
  EXPECT_THAT(needed(0.1, 4), ElementsAre(1, 2));  // window; window and what is always kept
  EXPECT_THAT(needed(0.625, 4), ElementsAre(2, 2));
  EXPECT_EQ(recall(0), 0.625);
  EXPECT_EQ(recall(1), 1.0);
  EXPECT_THAT(needed(0.7, 4), ElementsAre(3, 2));
  EXPECT_THAT(needed(1, 4), ElementsAre(4, 2));
  EXPECT_THAT(needed(1, 3), ElementsAre(3, 2));
  EXPECT_EQ(recall(0), 0.875);
  const CaseTensor kept(backend_, 2, 3, std::vector<int32_t>{0, 2, 3, 1, 3, -1});
  backend_.recall(mass.view(), kept.view(), counts.view(), recalls.view());
  EXPECT_EQ(recall(0), 0.75);
  EXPECT_EQ(recall(1), 1.0);
}

TEST_F(ReferenceTest, FillsAndFetchesViewsOfRows) {
  const CaseTensor x = tensor(2, 3, {1, 2, 3, 4, 5, 6}), y = tensor(1, 2, {7, 8});
  backend_.fill(x.view().slice_cols(1, 1), 9);
  std::vector<float> columns(4, 0), row(2, 0);
  const Fetch reads[] = {{columns.data(), x.view().slice_cols(1, 2)}, {row.data(), y.view()}, {nullptr, {}}};
  backend_.fetch(reads);
  EXPECT_THAT(columns, ElementsAre(9, 3, 9, 6));
  EXPECT_THAT(row, ElementsAre(7, 8));
}

TEST_F(ReferenceTest, StagedMemoryIsZeroAndReadByOperationsOnceCommitted) {
  auto staged = backend_.allocate_staged(100);
  ASSERT_TRUE(staged.ok()) << staged.status();
  EXPECT_EQ(staged->bytes(), 100u);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(staged->device()) % 64, 0u);
  std::vector<int32_t> words(25, -1);
  const TensorView device{staged->device(), DType::kI32, 1, 25, 25};
  backend_.fetch({words.data(), device});
  EXPECT_THAT(words, testing::Each(0));
  reinterpret_cast<int32_t*>(staged->host())[3] = 42;
  backend_.commit(*staged, 12, 4);
  backend_.fetch({words.data(), device});
  EXPECT_EQ(words[3], 42);
}

TEST_F(ReferenceTest, LazyMemoryIsZeroAndAligned) {
  auto memory =
      backend_.allocate_lazy(size_t{1} << 38);  // more than there is; ThreadSanitizer leaves no room for much more
  ASSERT_TRUE(memory.ok()) << memory.status();
  EXPECT_EQ(reinterpret_cast<uintptr_t>(memory->get()) % 4096, 0u);
  EXPECT_EQ(memory->get()[123456789], std::byte{0});
}

}  // namespace
}  // namespace pkv
