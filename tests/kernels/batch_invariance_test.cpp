// The batch does not change the answer: a row of linear, attend or row_lse gives the same bits alone, in any batch and
// in any division of a prompt into chunks.
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/kernels/backends_under_test.h"
#include "tests/kernels/case_data.h"

namespace pkv {
namespace {

class BatchInvarianceTest : public testing::Test {
 protected:
  static void SetUpTestSuite() { backends_ = new std::vector<BackendUnderTest>(backends_under_test({2})); }
  static void TearDownTestSuite() {
    delete backends_;
    backends_ = nullptr;
  }
  static std::vector<BackendUnderTest>* backends_;
};

std::vector<BackendUnderTest>* BatchInvarianceTest::backends_ = nullptr;

// Start and length of the pieces of `rows` rows, `piece` at a time.
std::vector<std::pair<int32_t, int32_t>> pieces_of(int32_t rows, int32_t piece) {
  std::vector<std::pair<int32_t, int32_t>> pieces;
  for (int32_t first = 0; first < rows; first += piece) pieces.emplace_back(first, std::min(piece, rows - first));
  return pieces;
}

TEST_F(BatchInvarianceTest, Linear) {
  constexpr int32_t kRows = 83, kInputs = 576, kOutputs = 200;
  std::mt19937 rng(1);
  const Matrix x = random_matrix(rng, kRows, kInputs);
  for (WeightType type : {WeightType::kQ4_1, WeightType::kQ8_0, WeightType::kF16}) {
    const std::vector<uint8_t> blocks = random_weight(rng, type, kOutputs, kInputs);
    for (const BackendUnderTest& tested : *backends_) {
      Backend& backend = *tested.backend;
      struct Use {
        const char* name;
        Phase phase;
        bool tolerant;
      };
      for (const auto& [use, phase, tolerant] : {Use{" decode", Phase::kDecode, false},
                                                 {" prefill", Phase::kPrefill, false},
                                                 {" tolerant prefill", Phase::kPrefill, true}}) {
        auto weight = backend.prepare_weight(
            {.data = blocks.data(), .type = type, .rows = kOutputs, .cols = kInputs, .tolerant = tolerant});
        ASSERT_TRUE(weight.ok()) << weight.status();
        const CaseTensor input(backend, x, Placement::kDense);
        const CaseTensor whole(backend, Matrix(kRows, kOutputs), Placement::kDense);
        backend.linear(input.view(), **weight, false, phase, whole.view());
        const Output expected = whole.floats(backend, "whole");
        for (int32_t piece : {1, 2, 5, 16, 40}) {
          const CaseTensor parts(backend, Matrix(kRows, kOutputs), Placement::kDense);
          for (const auto& [first, count] : pieces_of(kRows, piece)) {
            backend.linear(input.view().slice_rows(first, count), **weight, false, phase,
                           parts.view().slice_rows(first, count));
          }
          EXPECT_EQ(expected.floats, parts.floats(backend, "parts").floats)
              << tested.name << " " << quant_traits(type).name << use << " in " << piece << "s";
        }
      }
    }
  }
}

constexpr int32_t kKvHeads = 3, kQueryHeads = 9, kHeadDim = 64;

// A cache in which lane i has `lengths[i]` entries of one format.
CacheContent make_cache(std::mt19937& rng, const std::vector<int32_t>& lengths, KvDtype dtype) {
  CacheSpec spec{.head_dim = kHeadDim};
  for (int32_t length : lengths) {
    spec.lanes.push_back(
        {.filled = length, .lane = {.length = length, .write_slot = length - 1, .visible = length, .dtype = dtype}});
  }
  return CacheContent(rng, std::move(spec));
}

std::vector<float> attend(Backend& backend, const CacheContent& cache, const TensorView& q, std::vector<RowSpan> spans,
                          Phase phase) {
  const CaseCache on_backend(backend, cache);
  const CaseTensor out(backend, Matrix(q.rows, q.cols), Placement::kDense);
  const BackendArray<RowSpan> span_array(backend, spans);
  backend.attend({.q = q,
                  .out = out.view(),
                  .kv = on_backend.view(),
                  .spans = row_spans(span_array),
                  .q_heads = kQueryHeads,
                  .kv_heads = kKvHeads,
                  .scale = 0.125f,
                  .phase = phase});
  return out.floats(backend, "out").floats;
}

TEST_F(BatchInvarianceTest, AttendRowsOfSeveralSequences) {
  std::mt19937 rng(2);
  const std::vector<int32_t> lengths = {700, 33, 500, 1, 16, 17, 300, 2500, 40};
  const Matrix q = random_matrix(rng, 3, kQueryHeads * kHeadDim);
  for (KvDtype dtype : {KvDtype::kF16, KvDtype::kF32, KvDtype::kK8V4}) {
    const CacheContent cache = make_cache(rng, lengths, dtype);
    for (const BackendUnderTest& tested : *backends_) {
      const CaseTensor queries(*tested.backend, q, Placement::kDense);
      for (Phase phase : {Phase::kDecode, Phase::kPrefill}) {
        const std::vector<float> together =
            attend(*tested.backend, cache, queries.view(), {{0, 1, 0}, {1, 1, 3}, {2, 1, 6}}, phase);
        for (int32_t row = 0; row < 3; ++row) {
          const std::vector<float> alone =
              attend(*tested.backend, cache, queries.view().slice_rows(row, 1), {{0, 1, 3 * row}}, phase);
          EXPECT_TRUE(std::equal(alone.begin(), alone.end(), together.begin() + row * q.cols))
              << tested.name << " row " << row;
        }
      }
    }
  }
}

TEST_F(BatchInvarianceTest, AttendChunksOfAPrompt) {
  std::mt19937 rng(3);
  constexpr int32_t kRows = 70, kBefore = 400;
  const Matrix q = random_matrix(rng, kRows, kQueryHeads * kHeadDim);
  CacheContent cache = make_cache(rng, {kBefore + kRows, kBefore + kRows, kBefore + kRows}, KvDtype::kF16);
  for (const BackendUnderTest& tested : *backends_) {
    const CaseTensor queries(*tested.backend, q, Placement::kDense);
    // The entries are all there; a chunk sees those up to its own rows.
    const auto attend_rows = [&](int32_t first, int32_t rows) {
      for (Lane& lane : cache.lanes) {
        lane.visible = kBefore + first + 1;
        lane.write_slot = kBefore + first;
        lane.length = kBefore + first + rows;
      }
      return attend(*tested.backend, cache, queries.view().slice_rows(first, rows), {{0, rows, 0}}, Phase::kPrefill);
    };
    const std::vector<float> whole = attend_rows(0, kRows);
    for (int32_t piece : {1, 7, 16, 33}) {
      for (const auto& [first, count] : pieces_of(kRows, piece)) {
        const std::vector<float> chunk = attend_rows(first, count);
        EXPECT_TRUE(std::equal(chunk.begin(), chunk.end(), whole.begin() + first * q.cols))
            << tested.name << " rows from " << first << " in " << piece << "s";
      }
    }
  }
}

TEST_F(BatchInvarianceTest, RowLogSumExp) {
  std::mt19937 rng(4);
  constexpr int32_t kRows = 21, kLength = 600;
  const Matrix q = random_matrix(rng, kRows, kQueryHeads * kHeadDim);
  const CacheContent cache = make_cache(rng, {kLength, kLength, kLength}, KvDtype::kF16);
  for (const BackendUnderTest& tested : *backends_) {
    Backend& backend = *tested.backend;
    const CaseTensor queries(backend, q, Placement::kDense);
    const CaseCache on_backend(backend, cache);
    const CaseTensor whole(backend, Matrix(kRows, kQueryHeads), Placement::kDense);
    const CaseTensor parts(backend, Matrix(kRows, kQueryHeads), Placement::kDense);
    const auto run = [&](int32_t first, int32_t rows, const CaseTensor& out) {
      backend.row_lse({.q = queries.view().slice_rows(first, rows),
                       .kv = on_backend.view(),
                       .unseen = kRows - 1 - first,
                       .q_heads = kQueryHeads,
                       .kv_heads = kKvHeads,
                       .scale = 0.125f},
                      out.view().slice_rows(first, rows));
    };
    run(0, kRows, whole);
    for (int32_t piece : {1, 8}) {
      for (const auto& [first, count] : pieces_of(kRows, piece)) run(first, count, parts);
      EXPECT_EQ(whole.floats(backend, "whole").floats, parts.floats(backend, "parts").floats)
          << tested.name << " in " << piece;
    }
  }
}

}  // namespace
}  // namespace pkv
