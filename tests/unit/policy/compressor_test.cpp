// The cut of whole prompts: what every selection must fulfil, that survivors move with their contents, and that neither
// the chunks nor the neighbours change the outcome.
#include "server/policy/compressor.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <set>

#include "gmock/gmock.h"
#include "tests/support/backend_array.h"
#include "tests/support/counting_backend.h"
#include "tests/support/metered_backend.h"
#include "tests/support/tested_backend.h"
#include "tests/unit/policy/policy_specs.h"
#include "tests/unit/policy/prompt_run.h"
#include "tests/unit/policy/scored_layer.h"

namespace pkv {
namespace {

using ::testing::Each;

// Numbers in [-1, 1), the same with every standard library.
std::vector<float> random_rows(std::mt19937& random, size_t count) {
  std::vector<float> rows(count);
  for (float& value : rows) value = static_cast<float>(random() % 65536) / 32768.0f - 1.0f;
  return rows;
}

int64_t waits(const test::CountingBackend& backend) { return backend.count("fetch") + backend.count("sync"); }

struct Shape {
  CacheGeometry geometry;
  int32_t q_heads = 0;
  int32_t tokens = 0;

  Compressor::Options options() const { return {.geometry = geometry, .q_heads = q_heads, .prompt_tokens = tokens}; }
  Planned planned(const PolicySpec& spec) const {
    return pkv::planned(spec, {.geometry = geometry, .q_heads = q_heads, .prompt_tokens = tokens});
  }
  // Queries sharpened so that attention is far from uniform; value row i of every head begins with i.
  LayerRows layer(std::mt19937& random) const {
    const size_t rows = static_cast<size_t>(tokens), dims = static_cast<size_t>(geometry.head_dim);
    const size_t kv_width = static_cast<size_t>(geometry.kv_heads) * dims;
    LayerRows result{.q = random_rows(random, rows * static_cast<size_t>(q_heads) * dims),
                     .k = random_rows(random, rows * kv_width),
                     .v = random_rows(random, rows * kv_width)};
    for (float& value : result.q) value *= 4.0f;
    for (size_t at = 0; at < result.v.size(); at += dims) result.v[at] = static_cast<float>(at / kv_width);
    return result;
  }
};

class CompressorTest : public ::testing::Test {
 protected:
  std::unique_ptr<KvCache> make_cache(const CacheGeometry& geometry) {
    auto cache = KvCache::create(*backend_, geometry, uint64_t{1} << 22);
    EXPECT_TRUE(cache.ok());
    return *std::move(cache);
  }
  static std::vector<std::unique_ptr<Backend>> backends() {
    std::vector<std::unique_ptr<Backend>> made;
    for (const char* device : {"reference", "cpu"}) {
      made.push_back(*make_backend({.device = device, .exact = true, .threads = 2}));
    }
    return made;
  }
  Shape draw_shape() {
    const auto between = [&](int32_t low, int32_t high) {
      return low + static_cast<int32_t>(random_() % static_cast<uint32_t>(high - low + 1));
    };
    Shape shape{.geometry = {.layers = between(1, 4),
                             .kv_heads = between(1, 3),
                             .head_dim = 4 * between(1, 4),
                             .page_bytes = 64 * between(2, 5)}};
    shape.q_heads = shape.geometry.kv_heads * between(1, 3);
    shape.tokens = between(20, 90);
    return shape;
  }

  std::mt19937 random_{11};
  std::unique_ptr<Backend> backend_ = test::make_tested_backend();
};

void expect_valid_lane(const std::vector<int32_t>& kept, int32_t budget, int32_t tokens, int32_t window) {
  ASSERT_EQ(kept.size(), static_cast<size_t>(budget));
  for (size_t i = 1; i < kept.size(); ++i) ASSERT_LT(kept[i - 1], kept[i]);
  ASSERT_GE(kept.front(), 0);
  ASSERT_LT(kept.back(), tokens);
  const std::set<int32_t> set(kept.begin(), kept.end());
  for (int32_t newest = tokens - window; newest < tokens; ++newest) ASSERT_TRUE(set.count(newest));
}

TEST_F(CompressorTest, KeepsBudgetWindowAndContentsOfEveryLane) {
  for (int round = 0; round < 60; ++round) {
    const Shape shape = draw_shape();
    PolicySpec spec = spec_of(round % 2 == 0 ? PolicyKind::kSnapKv : PolicyKind::kPyramidKv, 9 + round % 11);
    if (round % 4 == 3) spec.params.allocation = PyramidAllocation::kFactory;
    const Planned policy = shape.planned(spec);
    const auto cache = make_cache(shape.geometry);
    PromptRun prompt(*backend_, *cache, policy, shape.options());
    const std::vector<int32_t>& budgets = policy.plan.lane_budgets;
    for (int32_t layer = 0; layer < shape.geometry.layers; ++layer) {
      const LayerRows rows = shape.layer(random_);
      const LayerOutcome outcome = prompt.run_layer(layer, rows, 16);
      ASSERT_EQ(outcome.kept_positions.size(), static_cast<size_t>(shape.geometry.kv_heads));
      for (int32_t head = 0; head < shape.geometry.kv_heads; ++head) {
        const auto lane = static_cast<size_t>(layer * shape.geometry.kv_heads + head);
        const std::vector<int32_t>& kept = outcome.kept_positions[static_cast<size_t>(head)];
        expect_valid_lane(kept, budgets[lane], shape.tokens, 8);
        if (HasFatalFailure()) return;
        ASSERT_EQ(outcome.kept[static_cast<size_t>(head)], budgets[lane]);
        ASSERT_EQ(cache->length(prompt.sequence(), layer, head), budgets[lane]);
        ASSERT_EQ(cache->positions(prompt.sequence(), layer, head), kept);
        ASSERT_GT(outcome.recall[static_cast<size_t>(head)], 0.0);
        ASSERT_LE(outcome.recall[static_cast<size_t>(head)], 1.0 + 1e-12);
        const std::vector<float> values = prompt.first_dimension(layer, head, true);
        const std::vector<float> keys = prompt.first_dimension(layer, head, false);
        for (size_t slot = 0; slot < kept.size(); ++slot) {
          const size_t at = (static_cast<size_t>(kept[slot]) * static_cast<size_t>(shape.geometry.kv_heads) +
                             static_cast<size_t>(head)) *
                            static_cast<size_t>(shape.geometry.head_dim);
          ASSERT_EQ(values[slot], static_cast<float>(kept[slot]));
          ASSERT_EQ(keys[slot], rows.k[at]);
        }
      }
    }
    cache->close(prompt.sequence());
    ASSERT_EQ(cache->pool().live(), 0);
  }
}

TEST_F(CompressorTest, ChunksAndNeighboursDoNotChangeTheSelection) {
  for (int round = 0; round < 20; ++round) {
    const Shape shape = draw_shape();
    const LayerRows rows = shape.layer(random_), other_rows = shape.layer(random_);
    const Planned policy = shape.planned(spec_of(PolicyKind::kPyramidKv, 12));
    const auto alone = make_cache(shape.geometry), shared = make_cache(shape.geometry);
    PromptRun whole(*backend_, *alone, policy, shape.options());
    PromptRun neighbour(*backend_, *shared, policy, shape.options());
    neighbour.run_layer(0, other_rows, 9);
    PromptRun pieces(*backend_, *shared, policy, shape.options());
    const LayerOutcome expected = whole.run_layer(0, rows, shape.tokens);
    const LayerOutcome actual = pieces.run_layer(0, rows, 5);
    EXPECT_EQ(actual.kept_positions, expected.kept_positions);
    EXPECT_EQ(actual.recall, expected.recall);
  }
}

// Columns [first, first + width) of rows of `stride` numbers.
std::vector<float> columns(const std::vector<float>& rows, size_t stride, size_t first, size_t width) {
  std::vector<float> result;
  for (size_t at = first; at < rows.size(); at += stride) {
    result.insert(result.end(), rows.begin() + static_cast<std::ptrdiff_t>(at),
                  rows.begin() + static_cast<std::ptrdiff_t>(at + width));
  }
  return result;
}

TEST_F(CompressorTest, EveryKvHeadIsScoredByItsOwnQueryHeads) {
  const Shape shape{
      .geometry = {.layers = 1, .kv_heads = 3, .head_dim = 8, .page_bytes = 256}, .q_heads = 6, .tokens = 64};
  Shape single = shape;
  single.geometry.kv_heads = 1;
  single.q_heads = 2;
  const LayerRows rows = shape.layer(random_);
  const Planned policy = shape.planned(spec_of(PolicyKind::kSnapKv, 20));
  const auto cache = make_cache(shape.geometry), single_cache = make_cache(single.geometry);
  PromptRun prompt(*backend_, *cache, policy, shape.options());
  const LayerOutcome together = prompt.run_layer(0, rows, 16);
  for (size_t head = 0; head < 3; ++head) {
    PromptRun alone(*backend_, *single_cache, policy, single.options());
    const LayerOutcome outcome = alone.run_layer(0,
                                                 {.q = columns(rows.q, 6 * 8, head * 2 * 8, 2 * 8),
                                                  .k = columns(rows.k, 3 * 8, head * 8, 8),
                                                  .v = columns(rows.v, 3 * 8, head * 8, 8)},
                                                 16);
    EXPECT_EQ(together.kept_positions[head], outcome.kept_positions[0]);
    EXPECT_EQ(together.recall[head], outcome.recall[0]);
  }
}

TEST_F(CompressorTest, PyramidOfBetaOneSelectsAsSnapKv) {
  PolicySpec spec = spec_of(PolicyKind::kPyramidKv, 14);
  spec.params.beta_millionths = kMillion;
  const Shape shape = draw_shape();
  const Planned pyramid = shape.planned(spec), snapkv = shape.planned(spec_of(PolicyKind::kSnapKv, 14));
  const auto cache = make_cache(shape.geometry);
  PromptRun first(*backend_, *cache, pyramid, shape.options());
  PromptRun second(*backend_, *cache, snapkv, shape.options());
  for (int32_t layer = 0; layer < shape.geometry.layers; ++layer) {
    const LayerRows rows = shape.layer(random_);
    EXPECT_EQ(first.run_layer(layer, rows, 16).kept_positions, second.run_layer(layer, rows, 16).kept_positions);
  }
}

TEST_F(CompressorTest, NoOpsObserveNothingAndLeaveTheLanesAlone) {
  for (PolicyKind kind : {PolicyKind::kFull, PolicyKind::kSnapKv, PolicyKind::kPyramidKv}) {
    const Shape shape = draw_shape();
    const Planned policy = shape.planned(spec_of(kind, shape.tokens));
    const auto cache = make_cache(shape.geometry);
    PromptRun prompt(*backend_, *cache, policy, shape.options());
    EXPECT_FALSE(policy.plan.compresses);
    EXPECT_EQ(Compressor::workspace_bytes(*policy.policy, policy.plan, shape.options()), 0u);
    const LayerOutcome outcome = prompt.run_layer(0, shape.layer(random_), 16);
    EXPECT_EQ(outcome.budget_tokens, shape.tokens);
    EXPECT_THAT(outcome.kept, Each(shape.tokens));
    EXPECT_THAT(outcome.recall, Each(1.0));
    std::vector<int32_t> all(static_cast<size_t>(shape.tokens));
    std::iota(all.begin(), all.end(), 0);
    EXPECT_THAT(outcome.kept_positions, Each(all));
    EXPECT_EQ(cache->positions(prompt.sequence(), 0, 0), all);
  }
}

TEST_F(CompressorTest, ALayerWithABudgetOfTheWholePromptIsNotCut) {
  // n = B + 1: the pyramid's lowest layers keep everything, its upper ones do not.
  const Shape shape{
      .geometry = {.layers = 4, .kv_heads = 2, .head_dim = 8, .page_bytes = 256}, .q_heads = 4, .tokens = 41};
  const Planned policy = shape.planned(spec_of(PolicyKind::kPyramidKv, 40));
  const auto cache = make_cache(shape.geometry);
  PromptRun prompt(*backend_, *cache, policy, shape.options());
  EXPECT_TRUE(policy.plan.compresses);
  const LayerOutcome lowest = prompt.run_layer(0, shape.layer(random_), 16);
  EXPECT_THAT(lowest.kept, Each(41));
  EXPECT_THAT(lowest.recall, Each(1.0));
  for (int32_t layer : {1, 2}) prompt.run_layer(layer, shape.layer(random_), 16);
  const LayerOutcome highest = prompt.run_layer(3, shape.layer(random_), 16);
  EXPECT_THAT(highest.kept, Each(39));
  EXPECT_THAT(highest.recall, Each(::testing::Lt(1.0)));
}

TEST_F(CompressorTest, LanesOfOneLayerMayHaveBudgetsOfTheirOwn) {
  const Shape shape{
      .geometry = {.layers = 1, .kv_heads = 5, .head_dim = 8, .page_bytes = 128}, .q_heads = 10, .tokens = 50};
  const LayerRows rows = shape.layer(random_);
  const auto cache = make_cache(shape.geometry);
  Planned ragged = shape.planned(spec_of(PolicyKind::kSnapKv, 20));
  ragged.plan.lane_budgets = {12, 12, 20, 8, 50};  // as later policies have them
  PromptRun prompt(*backend_, *cache, ragged, shape.options());
  const LayerOutcome outcome = prompt.run_layer(0, rows, 16);
  EXPECT_EQ(outcome.budget_tokens, 50);
  EXPECT_EQ(outcome.kept, (std::vector<int32_t>{12, 12, 20, 8, 50}));
  EXPECT_DOUBLE_EQ(outcome.recall[4], 1.0);
  // Each lane as a policy of that budget for all lanes has it.
  for (size_t head : {0, 1, 2}) {
    const Planned uniform = shape.planned(spec_of(PolicyKind::kSnapKv, outcome.kept[head]));
    PromptRun same(*backend_, *cache, uniform, shape.options());
    EXPECT_EQ(same.run_layer(0, rows, 16).kept_positions[head], outcome.kept_positions[head]);
  }
  for (int32_t head = 0; head < 5; ++head) {
    expect_valid_lane(outcome.kept_positions[static_cast<size_t>(head)], outcome.kept[static_cast<size_t>(head)], 50,
                      8);
    EXPECT_EQ(cache->positions(prompt.sequence(), 0, head), outcome.kept_positions[static_cast<size_t>(head)]);
  }
}

// ---- lanes that share a layer's total

TEST_F(CompressorTest, LanesShareALayersTotalByTheirScores) {
  const Shape shape{
      .geometry = {.layers = 1, .kv_heads = 4, .head_dim = 8, .page_bytes = 128}, .q_heads = 8, .tokens = 60};
  for (int round = 0; round < 20; ++round) {
    LayerRows rows = shape.layer(random_);
    // The queries of the last head look at nothing in particular, so its scores are flat and low.
    for (size_t at = 0; at < rows.q.size(); ++at) rows.q[at] *= at / 8 % 8 >= 6 ? 0.05f : 1.0f;
    const auto cache = make_cache(shape.geometry);
    Planned sharing = shape.planned(spec_of(PolicyKind::kSnapKv, 20));
    sharing.plan.shared_budgets = {4 * 20};
    sharing.plan.smallest_lanes = {8 + round % 3};
    const int32_t largest = 24 + round;
    std::fill(sharing.plan.lane_budgets.begin(), sharing.plan.lane_budgets.end(), largest);
    PromptRun prompt(*backend_, *cache, sharing, shape.options());
    const LayerOutcome outcome = prompt.run_layer(0, rows, 16);
    EXPECT_EQ(std::accumulate(outcome.kept.begin(), outcome.kept.end(), 0), 4 * 20);
    EXPECT_EQ(outcome.budget_tokens, *std::max_element(outcome.kept.begin(), outcome.kept.end()));
    EXPECT_LT(outcome.kept[3], 20);
    for (size_t head = 0; head < 4; ++head) {
      EXPECT_GE(outcome.kept[head], sharing.plan.smallest_lanes[0]);
      EXPECT_LE(outcome.kept[head], largest);
      expect_valid_lane(outcome.kept_positions[head], outcome.kept[head], shape.tokens, 8);
      if (outcome.kept[head] == 8) continue;  // the window alone, which no budget says
      // What it keeps is what that many entries are without sharing.
      const Planned alone = shape.planned(spec_of(PolicyKind::kSnapKv, outcome.kept[head]));
      PromptRun same(*backend_, *cache, alone, shape.options());
      const LayerOutcome expected = same.run_layer(0, rows, 16);
      EXPECT_EQ(outcome.kept_positions[head], expected.kept_positions[head]);
      EXPECT_EQ(outcome.recall[head], expected.recall[head]);
    }
  }
}

// ---- layers that share

TEST_F(CompressorTest, LayersThatShareKeepTheContentsOfWhatIsLeftInTheEnd) {
  const test::BackendArray<float> inv_freq(*backend_, {0.5f});
  int32_t uneven = 0;
  for (int round = 0; round < 40; ++round) {
    Shape shape = draw_shape();
    shape.geometry.layers += 2;
    shape.tokens += 20;
    PolicySpec spec = spec_of(PolicyKind::kFunnel, 18 + round % 9);
    spec.params.funnel_allocation = FunnelAllocation::kGlobal;
    spec.params.window_tokens = 4;
    spec.kv_dtype = KvDtype::kF32;
    const Planned policy = shape.planned(spec);
    ASSERT_TRUE(policy.plan.shares_model());
    const auto cache = make_cache(shape.geometry);
    Compressor::Options options = shape.options();
    options.rope = {.inv_freq = inv_freq.data(), .pairs = 1, .head_dim = shape.geometry.head_dim};
    PromptRun prompt(*backend_, *cache, policy, options);
    std::vector<LayerRows> rows;
    for (int32_t layer = 0; layer < shape.geometry.layers; ++layer) {
      rows.push_back(shape.layer(random_));
      for (float& value : rows.back().q) value *= static_cast<float>(1 + layer % 2);
      prompt.cut_layer(layer, rows.back(), 16);
    }
    const CacheBytes bytes = cache->bytes(prompt.sequence());
    ASSERT_LE(bytes.peak, policy.plan.footprint.peak_bytes);
    int64_t entries = 0;
    for (int32_t layer = 0; layer < shape.geometry.layers; ++layer) {
      const LayerOutcome& outcome = prompt.read_outcomes()[static_cast<size_t>(layer)];
      for (int32_t head = 0; head < shape.geometry.kv_heads; ++head) {
        const auto index = static_cast<size_t>(head);
        const std::vector<int32_t> kept = cache->positions(prompt.sequence(), layer, head);
        expect_valid_lane(kept, outcome.kept[index], shape.tokens, 4);
        if (HasFatalFailure()) return;
        ASSERT_GE(outcome.kept[index], policy.plan.smallest_lanes[static_cast<size_t>(layer)]);
        ASSERT_GT(outcome.recall[index], 0.0);
        ASSERT_LE(outcome.recall[index], 1.0 + 1e-9);
        entries += outcome.kept[index];
        uneven += outcome.kept[index] != spec.budget.tokens ? 1 : 0;
        const std::vector<float> values = prompt.first_dimension(layer, head, true);
        const std::vector<float> keys = prompt.first_dimension(layer, head, false);
        for (size_t slot = 0; slot < kept.size(); ++slot) {
          const auto at = static_cast<size_t>((kept[slot] * shape.geometry.kv_heads + head) * shape.geometry.head_dim);
          ASSERT_EQ(values[slot], static_cast<float>(kept[slot]));
          ASSERT_EQ(keys[slot], rows[static_cast<size_t>(layer)].k[at]);
        }
      }
    }
    ASSERT_EQ(entries, policy.plan.model_budget);
    cache->close(prompt.sequence());
    ASSERT_EQ(cache->pool().live(), 0);
  }
  EXPECT_GT(uneven, 100);
}

// ---- rows at other positions than their own

// Scores by the attention of any rows, at any positions.
class RowsPolicy : public CachePolicy {
 public:
  explicit RowsPolicy(std::vector<ObservationRow> rows) : rows_(std::move(rows)) {}
  int32_t window_tokens(int32_t) const override { return 1; }
  Observation observation() const override { return Observation::kRows; }
  std::vector<ObservationRow> observe(int32_t) const override { return rows_; }
  void score(const LayerView& layer, const ScoreBuffers& buffers, ScoreSteps& steps) const override {
    sum_observed_attention(layer, buffers, steps);
    steps.add(1, [buffers](const LayerView& now) {
      now.backend->reduce_groups(buffers.sums, GroupReduce::kMean, buffers.mass);
      now.backend->copy(buffers.scores, buffers.mass);
    });
  }
  DecodeRule decode_rule() const override { return {}; }

 private:
  std::vector<ObservationRow> rows_;
};

constexpr float kInvFreq[] = {0.5f, 0.125f, 0.03125f};  // of 8 dimensions 6 turn, neighbours by pairs

// The attention of the rows to every slot, by the book. One head of 8 dimensions.
std::vector<double> plain_mass(const LayerRows& layer, int32_t tokens, const std::vector<ObservationRow>& rows) {
  std::vector<double> mass(static_cast<size_t>(tokens), 0.0);
  for (const ObservationRow& row : rows) {
    const float* q = layer.q.data() + row.prompt_row * 8;
    std::vector<double> query(q, q + 8), weights;
    for (size_t pair = 0; pair < 3; ++pair) {
      const double angle = (row.position - row.prompt_row) * static_cast<double>(kInvFreq[pair]);
      const double a = query[2 * pair], b = query[2 * pair + 1];
      query[2 * pair] = a * std::cos(angle) - b * std::sin(angle);
      query[2 * pair + 1] = a * std::sin(angle) + b * std::cos(angle);
    }
    double sum = 0;
    for (int32_t slot = 0; slot < std::min(tokens, row.position + 1); ++slot) {
      const double score = std::inner_product(query.begin(), query.end(), layer.k.begin() + slot * 8, 0.0);
      weights.push_back(std::exp(score / std::sqrt(8.0)));
      sum += weights.back();
    }
    for (size_t slot = 0; slot < weights.size(); ++slot) mass[slot] += weights[slot] / sum;
  }
  return mass;
}

TEST_F(CompressorTest, RowsAreObservedAtThePositionsTheyAreTurnedTo) {
  const Shape shape{
      .geometry = {.layers = 1, .kv_heads = 1, .head_dim = 8, .page_bytes = 128}, .q_heads = 1, .tokens = 50};
  const std::vector<ObservationRow> choices[] = {
      {{49, 54}},                                       // the last row, as if it stood a little later
      {{10, 60}, {20, 60}, {21, 60}, {22, 60}},         // rows of anywhere as if they came next: all see everything
      {{46, 50}, {47, 51}, {48, 52}, {49, 53}},         // turned alike
      {{30, 20}, {31, 21}, {40, 12}},                   // back, where they see less than before
      {{5, 5}, {6, 6}, {20, 20}, {48, 48}, {49, 49}}};  // their own, not one after another
  for (const std::unique_ptr<Backend>& backend : backends()) {
    for (const std::vector<ObservationRow>& observed : choices) {
      for (const int32_t chunk : {50, 7}) {
        const LayerRows rows = shape.layer(random_);
        const auto cache = KvCache::create(*backend, shape.geometry, uint64_t{1} << 22);
        Planned planned = shape.planned(spec_of(PolicyKind::kTova, 13));
        planned.policy = std::make_unique<RowsPolicy>(observed);
        Compressor::Options options = shape.options();
        const test::BackendArray<float> inv_freq(*backend, kInvFreq);
        options.rope = {.inv_freq = inv_freq.data(), .pairs = 3, .head_dim = 8, .magnitude = 3.0f};
        PromptRun prompt(*backend, **cache, planned, options);
        const LayerOutcome outcome = prompt.run_layer(0, rows, chunk);
        const std::vector<double> mass = plain_mass(rows, shape.tokens, observed);
        const std::vector<float> scores(mass.begin(), mass.end());
        EXPECT_EQ(outcome.kept_positions[0], best_entries(scores, 13, 1, 0));
        EXPECT_NEAR(outcome.recall[0], recall_of(scores, outcome.kept_positions[0]), 1e-5);
      }
    }
  }
}

// ---- waits

// And once more for every layer whose lanes share: the host hands out pages.
TEST_F(CompressorTest, APromptWaitsForTheBackendOnce) {
  const Shape shape{
      .geometry = {.layers = 4, .kv_heads = 2, .head_dim = 8, .page_bytes = 256}, .q_heads = 4, .tokens = 60};
  for (const PolicyRow& row : policy_table()) {
    SCOPED_TRACE(row.name);
    test::CountingBackend backend(test::make_tested_backend());
    const auto cache = KvCache::create(backend, shape.geometry, uint64_t{1} << 22);
    PolicySpec spec = spec_of(row.kind, 20);
    if (row.takes_budget) spec.pins = {{3, 6}, {30, 31}};
    const Planned policy = shape.planned(spec);
    PromptRun prompt(backend, **cache, policy, shape.options());
    backend.reset();
    for (int32_t layer = 0; layer < shape.geometry.layers; ++layer) prompt.cut_layer(layer, shape.layer(random_), 16);
    int64_t shared = 0;
    for (int32_t layer = 0; layer < shape.geometry.layers; ++layer) shared += policy.plan.shares(layer) ? 1 : 0;
    EXPECT_EQ(waits(backend), shared);
    prompt.read_outcomes();
    EXPECT_EQ(waits(backend), shared + (row.observes_attention ? 1 : 0));
  }
}

TEST_F(CompressorTest, CountsItsBytesAndThoseOfTheScratch) {
  const Shape shape{
      .geometry = {.layers = 1, .kv_heads = 2, .head_dim = 16, .page_bytes = 256}, .q_heads = 6, .tokens = 100};
  test::MeteredBackend backend(test::make_tested_backend());
  auto scratch = CompressorScratch::create(backend, 6, shape.geometry, 100);
  ASSERT_TRUE(scratch.ok());
  const uint64_t scratch_bytes = CompressorScratch::bytes(6, shape.geometry, 100);
  EXPECT_EQ(scratch_bytes, 4u * (100 * (3 * 6 + 4 * 2) + 2 + 2 * 16));
  EXPECT_EQ(backend.live(), static_cast<int64_t>(scratch_bytes));
  scratch->reset();
  const struct {
    PolicyKind kind;
    uint64_t bytes;
  } cases[] = {{PolicyKind::kFull, 0},  // where attention is observed: the recall of two lanes in float64
               {PolicyKind::kSnapKv, 4u * 8 * (6 * 16 + 6) + 2 * 8},
               {PolicyKind::kTova, 4u * (6 * 16 + 6) + 2 * 8},
               {PolicyKind::kH2o, 4u * 6 * (64 + 100) + 2 * 8},
               {PolicyKind::kStreamingLlm, 0},
               {PolicyKind::kKeyDiff, 0}};
  for (const auto& [kind, bytes] : cases) {
    const Planned policy = shape.planned(spec_of(kind, 20));
    const auto compressor = Compressor::create(backend, *policy.policy, policy.plan, shape.options());
    ASSERT_TRUE(compressor.ok());
    EXPECT_EQ(backend.live(), static_cast<int64_t>(bytes)) << static_cast<int>(kind);
    EXPECT_EQ(Compressor::workspace_bytes(*policy.policy, policy.plan, shape.options()), bytes);
  }
}

}  // namespace
}  // namespace pkv
