// The CPU attention paths against double-precision loops on ragged, shuffled batches, and the promise that a row's
// result does not depend on its neighbours, on threads or on how a prompt was cut.
#include "kernels/cpu/attention/attention.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <numeric>

#include "attention_fixture.h"

namespace pkv {
namespace {

using ::testing::ElementsAreArray;

// What one attend() call is to work on: one sequence for each entry of `rows`, `kv_heads` lanes each.
struct Case {
  int32_t head_dim = 64;
  int32_t group = 3;
  int32_t kv_heads = 2;
  int32_t page_bytes = 4096;
  std::vector<LaneShape> lanes;
  std::vector<int32_t> rows;
  Phase phase = Phase::kDecode;
  bool exact = false;
};

struct Outcome {
  std::vector<float> out;
  std::vector<float> lse;
};

int32_t total_rows(const Case& c) { return std::accumulate(c.rows.begin(), c.rows.end(), 0); }

PagedLanes make_cache(const Case& c) {
  PagedLanes cache(c.head_dim, c.page_bytes, c.lanes, 0, 7);
  for (size_t s = 0; s < c.rows.size(); ++s) {
    for (int32_t head = 0; head < c.kv_heads; ++head) {
      Lane& lane = cache.lanes[s * c.kv_heads + head];
      lane.visible = lane.length - c.rows[s] + 1;
    }
  }
  return cache;
}

std::vector<RowSpan> make_spans(const Case& c) {
  std::vector<RowSpan> spans;
  int32_t row = 0;
  for (size_t s = 0; s < c.rows.size(); ++s) {
    spans.push_back({.first_row = row, .rows = c.rows[s], .first_lane = static_cast<int32_t>(s) * c.kv_heads});
    row += c.rows[s];
  }
  return spans;
}

std::vector<float> make_queries(const Case& c) {
  return random_floats(static_cast<size_t>(total_rows(c)) * c.kv_heads * c.group * c.head_dim, 11);
}

Outcome attend(const Case& c, const PagedLanes& cache, std::vector<float> q, const std::vector<RowSpan>& spans,
               CpuAttention& attention) {
  const int32_t q_heads = c.group * c.kv_heads;
  const int64_t rows = static_cast<int64_t>(q.size()) / (q_heads * c.head_dim);
  Outcome outcome{std::vector<float>(q.size(), -1), std::vector<float>(rows * q_heads, -1)};
  attention.attend({.q = matrix(q, rows),
                    .out = matrix(outcome.out, rows),
                    .lse = matrix(outcome.lse, rows),
                    .kv = cache.view(),
                    .spans = {spans.data(), static_cast<int32_t>(spans.size())},
                    .q_heads = q_heads,
                    .kv_heads = c.kv_heads,
                    .scale = 1.0f / std::sqrt(static_cast<float>(c.head_dim)),
                    .phase = c.phase});
  return outcome;
}

Outcome attend(const Case& c, const PagedLanes& cache, std::vector<float> q, const std::vector<RowSpan>& spans,
               const IsaFeatures& features, int32_t threads) {
  ThreadPool pool(threads);
  CpuAttention attention(features, c.exact, pool);
  return attend(c, cache, std::move(q), spans, attention);
}

Outcome attend(const Case& c, const IsaFeatures& features, int32_t threads = 2) {
  return attend(c, make_cache(c), make_queries(c), make_spans(c), features, threads);
}

// Every row and head of the case, in double precision.
std::vector<OracleRow> oracle(const Case& c) {
  const PagedLanes cache = make_cache(c);
  const std::vector<float> q = make_queries(c);
  const int32_t q_heads = c.group * c.kv_heads;
  std::vector<OracleRow> rows(static_cast<size_t>(total_rows(c)) * q_heads);
  for (const RowSpan& span : make_spans(c)) {
    for (int32_t head = 0; head < q_heads; ++head) {
      const int32_t lane = span.first_lane + head / c.group;
      const DenseLane dense(cache, lane);
      for (int32_t i = 0; i < span.rows; ++i) {
        const size_t at = static_cast<size_t>(span.first_row + i) * q_heads + head;
        rows[at] =
            oracle_attend(dense, cache.lanes[lane].visible + i, std::span(q).subspan(at * c.head_dim, c.head_dim));
      }
    }
  }
  return rows;
}

// Largest differences from the oracle.
struct Difference {
  double out = 0;
  double lse = 0;
};

Difference compare(const Outcome& outcome, const std::vector<OracleRow>& want) {
  Difference worst;
  const auto note = [](double difference, double& largest) {
    if (!(std::abs(difference) <= largest)) largest = std::abs(difference);  // a NaN is a difference, too
  };
  for (size_t at = 0; at < want.size(); ++at) {
    const size_t d = want[at].out.size();
    for (size_t k = 0; k < d; ++k) note(want[at].out[k] - outcome.out[at * d + k], worst.out);
    note(want[at].lse - outcome.lse[at], worst.lse);
  }
  return worst;
}

constexpr KvDtype kHalf = KvDtype::kF16;
constexpr KvDtype kFloat = KvDtype::kF32;
constexpr KvDtype kCodes = KvDtype::kK8V4;

// Head sizes, group sizes and pages that make whole, paired and partial vectors of slots.
struct Shape {
  int32_t head_dim, group, page_bytes;
};
const Shape kShapes[] = {
    {64, 3, 4096},  {64, 1, 4096},  {64, 8, 4096}, {64, 7, 2048}, {64, 2, 3072},
    {64, 4, 12288}, {64, 5, 16384}, {80, 1, 4096}, {96, 6, 4096}, {128, 4, 4096},
    {128, 7, 6144}, {256, 2, 4096}, {8, 9, 512},   {40, 3, 960},  {72, 12, 65536},
};

std::string describe(const Case& c, const IsaPath& path) {
  return path.name + ", d " + std::to_string(c.head_dim) + ", G " + std::to_string(c.group) + ", page " +
         std::to_string(c.page_bytes) + (c.exact ? ", exact" : "");
}

TEST(AttentionOracleTest, EveryDecodePathMatchesDoubles) {
  for (const Shape& shape : kShapes) {
    const Case c{.head_dim = shape.head_dim,
                 .group = shape.group,
                 .page_bytes = shape.page_bytes,
                 .lanes = {{1, kHalf}, {1, kCodes}, {700, kCodes}, {33, kHalf}, {515, kFloat}, {256, kHalf}},
                 .rows = {1, 2, 1}};
    const std::vector<OracleRow> want = oracle(c);
    for (const IsaPath& path : isa_paths()) {
      const Difference worst = compare(attend(c, path.features), want);
      EXPECT_LT(worst.out, 2e-6) << describe(c, path);
      EXPECT_LT(worst.lse, 2e-6) << describe(c, path);
    }
  }
}

TEST(AttentionOracleTest, EveryPrefillPathMatchesDoubles) {
  for (const Shape& shape : kShapes) {
    Case c{.head_dim = shape.head_dim,
           .group = shape.group,
           .page_bytes = shape.page_bytes,
           .lanes = {{37, kHalf}, {37, kFloat}, {532, kCodes}, {290, kFloat}, {1, kCodes}, {1, kFloat}},
           .rows = {37, 22, 1},
           .phase = Phase::kPrefill};
    const std::vector<OracleRow> want = oracle(c);
    for (const IsaPath& path : isa_paths()) {
      for (const bool exact : {false, true}) {
        c.exact = exact;
        const bool rounded = path.features.bf16 && !exact;
        const Difference worst = compare(attend(c, path.features), want);
        EXPECT_LT(worst.out, rounded ? 2e-2 : 3e-6) << describe(c, path);
        EXPECT_LT(worst.lse, rounded ? 2e-2 : 2e-6) << describe(c, path);
        EXPECT_EQ(worst.out > 1e-4, rounded) << describe(c, path);
      }
    }
  }
}

class AttentionTest : public ::testing::TestWithParam<IsaPath> {};

TEST_P(AttentionTest, LargeScoresDoNotOverflow) {
  for (const Phase phase : {Phase::kDecode, Phase::kPrefill}) {
    Case c{.lanes = {{600, kHalf}, {600, kHalf}}, .rows = {1}, .phase = phase, .exact = true};
    std::vector<float> q = make_queries(c);
    for (float& x : q) x *= 500.0f;
    const PagedLanes cache = make_cache(c);
    const Outcome outcome = attend(c, cache, q, make_spans(c), GetParam().features, 2);
    for (int32_t head = 0; head < 6; ++head) {
      const OracleRow want = oracle_attend(DenseLane(cache, head / 3), 600, std::span(q).subspan(head * 64, 64));
      EXPECT_NEAR(outcome.lse[head], want.lse, 1e-6 * std::abs(want.lse));
      for (int32_t k = 0; k < 64; ++k) EXPECT_NEAR(outcome.out[head * 64 + k], want.out[k], 2e-3);
    }
  }
}

// Operands are padded: with zeros, not with what the memory held before.
TEST_P(AttentionTest, WhatAnotherPromptLeftInMemoryIsNotRead) {
  const Case c{
      .head_dim = 40, .page_bytes = 960, .lanes = {{37, kFloat}, {37, kHalf}}, .rows = {5}, .phase = Phase::kPrefill};
  ThreadPool pool(1);
  CpuAttention attention(GetParam().features, false, pool);
  Case nothing{.head_dim = 128, .lanes = {{0, kFloat}, {0, kFloat}}, .rows = {100}, .phase = Phase::kPrefill};
  PagedLanes unwritten(nothing.head_dim, nothing.page_bytes, nothing.lanes, 512, 7);  // all NaN
  for (Lane& lane : unwritten.lanes) {
    lane.length = 512;
    lane.visible = 512 - 100 + 1;
  }
  const std::vector<float> q(make_queries(nothing).size(), std::nanf(""));
  EXPECT_TRUE(std::isnan(attend(nothing, unwritten, q, make_spans(nothing), attention).out[0]));
  const Outcome after = attend(c, make_cache(c), make_queries(c), make_spans(c), attention);
  EXPECT_THAT(after.out, ElementsAreArray(attend(c, GetParam().features).out));
}

TEST_P(AttentionTest, ThreadsDoNotChangeTheResult) {
  for (const Phase phase : {Phase::kDecode, Phase::kPrefill}) {
    const Case c{.lanes = {{90, kHalf}, {41, kFloat}, {3000, kCodes}, {801, kHalf}},
                 .rows = {phase == Phase::kDecode ? 1 : 41, phase == Phase::kDecode ? 1 : 300},
                 .phase = phase};
    const Outcome one = attend(c, GetParam().features, 1);
    for (const int32_t threads : {2, 3}) {
      const Outcome many = attend(c, GetParam().features, threads);
      EXPECT_THAT(many.out, ElementsAreArray(one.out));
      EXPECT_THAT(many.lse, ElementsAreArray(one.lse));
    }
  }
}

TEST_P(AttentionTest, RowsAloneGiveTheSameBitsAsInABatch) {
  for (const Phase phase : {Phase::kDecode, Phase::kPrefill}) {
    const Case c{.group = 3,
                 .page_bytes = 3072,
                 .lanes = {{300, kHalf}, {290, kFloat}, {1500, kHalf}, {700, kCodes}},
                 .rows = {5, 29},
                 .phase = phase};
    const PagedLanes cache = make_cache(c);
    const std::vector<float> q = make_queries(c);
    const Outcome batch = attend(c, cache, q, make_spans(c), GetParam().features, 2);
    const int32_t width = 6 * c.head_dim;
    for (const int32_t row : {0, 4, 5, 17, 33}) {
      const bool second = row >= 5;
      PagedLanes alone = cache;
      const int32_t inside = second ? row - 5 : row;
      for (Lane& lane : alone.lanes) lane.visible += inside;
      const std::vector<float> one_q(q.begin() + row * width, q.begin() + (row + 1) * width);
      const Outcome one =
          attend(c, alone, one_q, {{.first_row = 0, .rows = 1, .first_lane = second ? 2 : 0}}, GetParam().features, 1);
      EXPECT_EQ(0, std::memcmp(one.out.data(), &batch.out[row * width], width * sizeof(float))) << row;
      EXPECT_EQ(0, std::memcmp(one.lse.data(), &batch.lse[row * 6], 6 * sizeof(float))) << row;
    }
  }
}

TEST_P(AttentionTest, CuttingAPromptDoesNotChangeTheResult) {
  const Case whole{.lanes = {{600, kHalf}, {600, kHalf}}, .rows = {600}, .phase = Phase::kPrefill};
  const Outcome want = attend(whole, GetParam().features);
  const std::vector<float> q = make_queries(whole);
  const int32_t width = 6 * 64;
  for (const int32_t cut : {256, 101}) {
    PagedLanes cache = make_cache(whole);
    const std::vector<float> first_q(q.begin(), q.begin() + cut * width);
    const std::vector<float> rest_q(q.begin() + cut * width, q.end());
    const Outcome first = attend(whole, cache, first_q, {{.first_row = 0, .rows = cut}}, GetParam().features, 2);
    for (Lane& lane : cache.lanes) lane.visible = cut + 1;
    const Outcome rest = attend(whole, cache, rest_q, {{.first_row = 0, .rows = 600 - cut}}, GetParam().features, 2);
    EXPECT_EQ(0, std::memcmp(first.out.data(), want.out.data(), first.out.size() * sizeof(float)));
    EXPECT_EQ(0, std::memcmp(rest.out.data(), &want.out[cut * width], rest.out.size() * sizeof(float)));
  }
}

TEST_P(AttentionTest, OrderOfSlotsHardlyMatters) {
  const Case c{.lanes = {{900, kCodes}, {700, kFloat}}, .rows = {1}};
  PagedLanes cache = make_cache(c);
  const Outcome before = attend(c, cache, make_queries(c), make_spans(c), GetParam().features, 2);
  std::mt19937 rng(3);
  for (int32_t lane = 0; lane < 2; ++lane) {
    for (int32_t slot = c.lanes[lane].length - 1; slot > 0; --slot) {
      cache.swap_slots(lane, slot, static_cast<int32_t>(rng() % (slot + 1)));
    }
  }
  const Outcome after = attend(c, cache, make_queries(c), make_spans(c), GetParam().features, 2);
  EXPECT_NE(after.out, before.out);
  for (size_t i = 0; i < before.out.size(); ++i) EXPECT_NEAR(after.out[i], before.out[i], 1e-5);
}

TEST_P(AttentionTest, WritesAcrossPagesAndBeyondOnes) {
  for (const Shape& shape : kShapes) {
    const int32_t d = shape.head_dim;
    PagedLanes cache(d, shape.page_bytes, {{5, kHalf}, {6, kFloat}, {0, kFloat}, {100, kHalf}}, 60, 1);
    for (Lane& lane : cache.lanes) {
      lane.write_slot = lane.length;
      lane.length += 50;
    }
    const std::vector<RowSpan> spans = {{0, 50, 0}, {50, 50, 2}};
    std::vector<float> k = random_floats(100 * 2 * d, 5);
    std::vector<float> v = random_floats(100 * 2 * d, 6);
    std::vector<int32_t> positions(100);
    std::iota(positions.begin(), positions.end(), 1000);
    ThreadPool pool(2);
    CpuAttention attention(GetParam().features, false, pool);
    const PagedLanes before = cache;
    attention.write_kv(matrix(k, 100), matrix(v, 100), positions.data(), cache.view(),
                       {spans.data(), static_cast<int32_t>(spans.size())}, 2);
    for (int32_t lane = 0; lane < 4; ++lane) {
      const auto rounded = [&](float x) { return lane == 0 || lane == 3 ? half_to_float(float_to_half(x)) : x; };
      for (int32_t i = 0; i < 50; ++i) {
        const int32_t row = lane / 2 * 50 + i;
        const int32_t slot = cache.lanes[lane].write_slot + i;
        EXPECT_EQ(cache.position(lane, slot), 1000 + row);
        for (int32_t dim = 0; dim < d; ++dim) {
          const size_t at = static_cast<size_t>(row) * 2 * d + lane % 2 * d + dim;
          ASSERT_EQ(cache.key(lane, slot, dim), rounded(k[at]));
          ASSERT_EQ(cache.value(lane, slot, dim), rounded(v[at]));
        }
      }
      for (int32_t slot = 0; slot < cache.lanes[lane].write_slot; ++slot) {
        ASSERT_EQ(cache.key(lane, slot, d - 1), before.key(lane, slot, d - 1));
        ASSERT_EQ(cache.value(lane, slot, 0), before.value(lane, slot, 0));
      }
    }
  }
}

TEST_P(AttentionTest, AnEvictedSlotIsOverwrittenAndSeen) {
  const Case c{.lanes = {{300, kHalf}, {280, kFloat}}, .rows = {1}};
  PagedLanes cache = make_cache(c);
  const PagedLanes before = cache;
  cache.lanes[0].write_slot = 17;
  cache.lanes[1].write_slot = 279;
  std::vector<float> k = random_floats(128, 5);
  std::vector<float> v = random_floats(128, 6);
  ThreadPool pool(1);
  CpuAttention attention(GetParam().features, false, pool);
  const std::vector<int32_t> positions = {5000};
  const std::vector<RowSpan> spans = make_spans(c);
  attention.write_kv(matrix(k, 1), matrix(v, 1), positions.data(), cache.view(), {spans.data(), 1}, 2);
  EXPECT_EQ(cache.position(0, 17), 5000);
  EXPECT_EQ(cache.position(0, 16), 16);
  EXPECT_EQ(cache.position(1, 279), 5000);
  EXPECT_EQ(cache.key(0, 16, 3), before.key(0, 16, 3));
  EXPECT_EQ(cache.key(0, 17, 3), half_to_float(float_to_half(k[3])));
  const std::vector<float> q = make_queries(c);
  const Outcome outcome = attend(c, cache, q, make_spans(c), GetParam().features, 2);
  for (int32_t head = 0; head < 6; ++head) {
    const OracleRow want =
        oracle_attend(DenseLane(cache, head / 3), cache.lanes[head / 3].length, std::span(q).subspan(head * 64, 64));
    for (int32_t dim = 0; dim < 64; ++dim) EXPECT_NEAR(outcome.out[head * 64 + dim], want.out[dim], 2e-6);
  }
}

INSTANTIATE_TEST_SUITE_P(Isa, AttentionTest, ::testing::ValuesIn(isa_paths()),
                         [](const auto& path) { return path.param.name; });

class ObservationTest : public ::testing::TestWithParam<std::tuple<IsaPath, bool>> {
 protected:
  const IsaFeatures& features() const { return std::get<0>(GetParam()).features; }
  bool exact() const { return std::get<1>(GetParam()); }
};

TEST_P(ObservationTest, MatchesDoubles) {
  const bool rounded = features().bf16 && !exact();
  // A weight is at most 1, and as far off as its score and log-sum-exp together.
  const double tolerance = rounded ? 2e-2 : 2e-6, share = rounded ? 4e-2 : 0;
  for (const Shape& shape : kShapes) {
    const int32_t d = shape.head_dim;
    const int32_t q_heads = 2 * shape.group;
    // Two lanes of another sequence first; one more column than slots, which must stay untouched.
    const int32_t lengths[] = {530, 514};
    PagedLanes cache(d, shape.page_bytes, {{4, kHalf}, {4, kHalf}, {lengths[0], kHalf}, {lengths[1], kFloat}}, 0, 2);
    constexpr int64_t rows = 31;
    constexpr int32_t kUnseen = 23;  // across the tile's end, and rows that see everything
    std::vector<float> q = random_floats(rows * q_heads * d, 4);
    std::vector<float> lse(rows * q_heads);
    std::vector<float> sums(q_heads * 531, 1.0f);
    std::vector<float> squares(q_heads * 531, 2.0f);
    ThreadPool pool(2);
    CpuAttention attention(features(), exact(), pool);
    const ObserveArgs args{.q = matrix(q, rows),
                           .kv = cache.view(),
                           .first_lane = 2,
                           .unseen = kUnseen,
                           .q_heads = q_heads,
                           .kv_heads = 2,
                           .scale = 1 / std::sqrt(static_cast<float>(d))};
    attention.row_lse(args, matrix(lse, rows));
    attention.column_mass(args, matrix(lse, rows), matrix(sums, q_heads), matrix(squares, q_heads));
    std::vector<float> lse_too(lse.size()), sums_too(sums.size(), 1.0f), squares_too(squares.size(), 2.0f);
    attention.observe(args, matrix(lse_too, rows), matrix(sums_too, q_heads), matrix(squares_too, q_heads));
    EXPECT_EQ(lse_too, lse);
    for (size_t i = 0; i < sums.size(); ++i) {
      ASSERT_NEAR(sums_too[i], sums[i], 2e-6);
      ASSERT_NEAR(squares_too[i], squares[i], 2e-6);
    }
    for (int32_t head = 0; head < q_heads; ++head) {
      const DenseLane dense(cache, 2 + head / shape.group);
      std::vector<double> want_sums(531, 1.0);
      std::vector<double> want_squares(531, 2.0);
      for (int64_t r = 0; r < rows; ++r) {
        const int32_t visible = lengths[head / shape.group] - std::max<int32_t>(0, kUnseen - static_cast<int32_t>(r));
        const OracleRow want =
            oracle_attend(dense, visible, std::span(q).subspan((r * q_heads + head) * static_cast<size_t>(d), d));
        EXPECT_NEAR(lse[r * q_heads + head], want.lse, tolerance);
        for (int32_t slot = 0; slot < visible; ++slot) {
          want_sums[slot] += want.weights[slot];
          want_squares[slot] += want.weights[slot] * want.weights[slot];
        }
      }
      for (int32_t slot = 0; slot < 531; ++slot) {
        ASSERT_NEAR(sums[head * 531 + slot], want_sums[slot], 2e-6 + share * (want_sums[slot] - 1));
        ASSERT_NEAR(squares[head * 531 + slot], want_squares[slot], 2e-6 + 2 * share * (want_squares[slot] - 2));
      }
    }
  }
}

TEST_P(ObservationTest, DoesNotDependOnThreadsOrNeighbours) {
  const PagedLanes cache(64, 4096, {{1000, kHalf}, {1000, kHalf}}, 0, 2);
  constexpr int32_t kRows = 150;
  std::vector<float> q = random_floats(kRows * 6 * 64, 4);
  std::vector<float> first_lse, first_sums;
  for (const int32_t threads : {1, 2, 3}) {
    ThreadPool pool(threads);
    CpuAttention attention(features(), exact(), pool);
    std::vector<float> lse(kRows * 6);
    std::vector<float> sums(6 * 1000, 0.0f);
    ObserveArgs args{
        .q = matrix(q, kRows), .kv = cache.view(), .unseen = kRows - 1, .q_heads = 6, .kv_heads = 2, .scale = 0.125f};
    attention.observe(args, matrix(lse, kRows), matrix(sums, 6), {});
    if (threads == 1) {
      first_lse = lse;
      first_sums = sums;
      std::vector<float> last(6);
      args.q = args.q.slice_rows(kRows - 1, 1);
      args.unseen = 0;
      attention.row_lse(args, matrix(last, 1));
      EXPECT_THAT(last, ElementsAreArray(&lse[(kRows - 1) * 6], 6));
    }
    EXPECT_THAT(lse, ElementsAreArray(first_lse));
    EXPECT_THAT(sums, ElementsAreArray(first_sums));
  }
}

TEST_P(ObservationTest, MassesDoNotDependOnHowRowsAreDivided) {
  const PagedLanes cache(64, 4096, {{1000, kHalf}, {1000, kHalf}}, 0, 2);
  constexpr int32_t kRows = 150;
  std::vector<float> q = random_floats(kRows * 6 * 64, 4), lse(kRows * 6, 7.0f);
  ThreadPool pool(2);
  CpuAttention attention(features(), exact(), pool);
  const auto masses = [&](int32_t piece) {
    std::vector<float> sums(6 * 1000, 0.0f), squares(6 * 1000, 0.0f);
    for (int32_t first = 0; first < kRows; first += piece) {
      const int32_t count = std::min(piece, kRows - first);
      attention.column_mass({.q = matrix(q, kRows).slice_rows(first, count),
                             .kv = cache.view(),
                             .unseen = kRows - 1 - first,
                             .q_heads = 6,
                             .kv_heads = 2,
                             .scale = 0.125f},
                            matrix(lse, kRows).slice_rows(first, count), matrix(sums, 6), matrix(squares, 6));
    }
    sums.insert(sums.end(), squares.begin(), squares.end());
    return sums;
  };
  const std::vector<float> whole = masses(kRows);
  for (const int32_t piece : {1, 7, 64}) EXPECT_THAT(masses(piece), ElementsAreArray(whole)) << piece;
}

INSTANTIATE_TEST_SUITE_P(Isa, ObservationTest, ::testing::Combine(::testing::ValuesIn(isa_paths()), ::testing::Bool()),
                         [](const auto& path) {
                           return std::get<0>(path.param).name + (std::get<1>(path.param) ? "_exact" : "");
                         });

}  // namespace
}  // namespace pkv
