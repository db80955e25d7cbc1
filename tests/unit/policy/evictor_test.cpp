// Evictions while generating: against a plain simulation of what docs/policies.md says, for every policy, and the order
// in which entries go where it can be told beforehand.
#include "server/policy/evictor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>
#include <random>

#include "tests/support/tested_backend.h"
#include "tests/unit/policy/plain_evictions.h"

namespace pkv {
namespace {

using ::testing::ElementsAre;

constexpr float kNone = std::numeric_limits<float>::quiet_NaN();

struct Shape {
  CacheGeometry geometry;
  int32_t q_heads = 0;
  int32_t prompt_tokens = 0;
  int32_t max_tokens = 0;
  int32_t interval_tokens = 64;
  int64_t most_step_work = 0;
};

class EvictorTest : public testing::Test {
 protected:
  std::vector<float> numbers(int32_t count, float scale = 1.0f) {
    std::vector<float> result;
    for (int32_t i = 0; i < count; ++i) {
      result.push_back(scale * (static_cast<float>(random_() % 65536) / 32768.0f - 1.0f));
    }
    return result;
  }
  int32_t between(int32_t low, int32_t high) {
    return low + static_cast<int32_t>(random_() % static_cast<uint32_t>(high - low + 1));
  }

  Shape draw_shape() {
    Shape shape{.geometry = {.layers = between(1, 3), .kv_heads = between(1, 3), .head_dim = 4 * between(1, 3)},
                .prompt_tokens = between(30, 50),
                .max_tokens = between(30, 60),
                .interval_tokens = between(1, 20),
                .most_step_work = between(1, 20'000)};
    shape.geometry.page_bytes = 64 * between(2, 4);
    shape.q_heads = shape.geometry.kv_heads * between(1, 3);
    return shape;
  }
  PolicySpec draw_spec(PolicyKind kind, const Shape& shape) {
    PolicySpec spec = spec_of(kind, between(24, 60));
    spec.params.seed = random_();
    spec.params.window_tokens = between(1, 6);
    spec.params.kernel_size = 3;
    if (random_() % 2 == 0) spec.params.h2o_score = H2oScore::kMean;
    if (random_() % 2 == 0) spec.pins = {{5, 8}, {shape.prompt_tokens - 2, shape.prompt_tokens}};
    return spec;
  }

  Planned planned_total(PolicySpec spec, const Shape& shape, test::LaneShape lanes = test::LaneShape::kOwn) {
    spec.budget.scope = BudgetScope::kTotal;
    spec.budget.interval_tokens = shape.interval_tokens;
    return planned(spec,
                   {.geometry = shape.geometry,
                    .q_heads = shape.q_heads,
                    .prompt_tokens = shape.prompt_tokens,
                    .max_tokens = shape.max_tokens},
                   lanes);
  }
  static Evictor::Options options_of(const Shape& shape) {
    return {.geometry = shape.geometry,
            .q_heads = shape.q_heads,
            .interval_tokens = shape.interval_tokens,
            .most_step_work = shape.most_step_work};
  }

  // Of all query heads of all layers, lower triangular.
  std::vector<float> draw_factors(const Shape& shape) {
    const int32_t d = shape.geometry.head_dim, rows = shape.geometry.layers * shape.q_heads * d;
    std::vector<float> factors = numbers(rows * d);
    for (int32_t row = 0; row < rows; ++row) {
      for (int32_t column = row % d + 1; column < d; ++column) factors[static_cast<size_t>(row * d + column)] = 0;
    }
    return factors;
  }

  // A lane that keeps `count` entries of a prompt: the newest W, sinks and pins, others at random. `scored`: what a
  // policy that scores at intervals knows of them.
  LaneStart draw_lane(const Planned& policy, const Shape& shape, int32_t count, bool scored) {
    const int32_t n = shape.prompt_tokens, window = policy.plan.window_tokens;
    std::vector<int32_t> order(static_cast<size_t>(n));
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), random_);
    const auto always = [&](int32_t position) {
      return position >= n - window ||
             std::any_of(policy.plan.kept_spans.begin(), policy.plan.kept_spans.end(),
                         [&](const TokenSpan& span) { return position >= span.begin && position < span.end; });
    };
    std::stable_partition(order.begin(), order.end(), always);
    LaneStart lane;
    lane.positions.assign(order.begin(), order.begin() + count);
    std::sort(lane.positions.begin(), lane.positions.end());
    const bool at_intervals = policy.policy->decode_rule().scoring() == DecodeRule::Scoring::kAtIntervals;
    for (const int32_t position : lane.positions) {
      // A few values only, so that many are equal.
      const float score = static_cast<float>(random_() % 8) / 4.0f;
      lane.scores.push_back(!scored || (at_intervals && position >= n - window) ? kNone : score);
    }
    lane.keys = numbers(count * shape.geometry.head_dim);
    lane.state = numbers(policy.policy->lane_state_floats(shape.geometry.head_dim));
    return lane;
  }

  // Entries that the cut leaves the layer's lanes.
  std::vector<int32_t> draw_counts(const CachePlan& plan, const Shape& shape, int32_t layer) {
    const auto heads = static_cast<size_t>(shape.geometry.kv_heads);
    const auto first = plan.lane_budgets.begin() + std::ptrdiff_t{layer} * shape.geometry.kv_heads;
    const std::vector<int32_t> most(first, first + shape.geometry.kv_heads);
    if (!plan.shares(layer)) return most;
    const int32_t smallest = plan.smallest_lanes[static_cast<size_t>(layer)];
    std::vector<int32_t> counts(heads, smallest);
    int64_t left = plan.shared_budgets[static_cast<size_t>(layer)] - int64_t{smallest} * shape.geometry.kv_heads;
    while (left > 0) {
      const size_t head = random_() % heads;
      if (counts[head] == most[head]) continue;
      ++counts[head];
      --left;
    }
    return counts;
  }

  TokenRows draw_token(const Shape& shape) {
    TokenRows token;
    for (int32_t layer = 0; layer < shape.geometry.layers; ++layer) {
      token.q.push_back(numbers(shape.q_heads * shape.geometry.head_dim, 4.0f));
      token.k.push_back(numbers(shape.geometry.kv_heads * shape.geometry.head_dim));
    }
    return token;
  }

  // Both through prompt and answer; after every token the lanes hold the same.
  void compare(const Planned& policy, const Shape& shape) {
    const CacheGeometry& geometry = shape.geometry;
    const std::vector<float> factors = draw_factors(shape);
    const int32_t width = shape.geometry.layers * shape.q_heads * geometry.head_dim;
    auto on_backend = backend_->allocate(width, geometry.head_dim, DType::kF32);
    ASSERT_TRUE(on_backend.ok());
    backend_->upload(on_backend->view(), factors.data());
    Evictor::Options options = options_of(shape);
    options.value_factors = on_backend->view();
    EvictingSequence sequence(*backend_, policy, options);
    PlainEvictions plain(policy, options, factors);
    const bool at_intervals = policy.policy->decode_rule().scoring() == DecodeRule::Scoring::kAtIntervals;
    for (int32_t layer = 0; layer < geometry.layers; ++layer) {
      const bool scored = !at_intervals || random_() % 2 == 0;
      std::vector<LaneStart> lanes;
      const std::vector<int32_t> counts = draw_counts(policy.plan, shape, layer);
      for (int32_t head = 0; head < geometry.kv_heads; ++head) {
        lanes.push_back(draw_lane(policy, shape, counts[static_cast<size_t>(head)], scored));
        plain.start_lane(layer, head, lanes.back());
      }
      sequence.start_layer(layer, shape.prompt_tokens, lanes);
      if (!at_intervals) continue;
      std::vector<std::vector<float>> rows;
      for (int32_t row = 0; row < policy.plan.window_tokens; ++row) {
        rows.push_back(numbers(shape.q_heads * geometry.head_dim, 4.0f));
      }
      sequence.set_newest_queries(layer, shape.prompt_tokens, rows);
      plain.set_newest_queries(layer, rows);
    }
    for (int32_t token = 0; token + 1 < shape.max_tokens; ++token) {
      const TokenRows rows = draw_token(shape);
      sequence.step(shape.prompt_tokens + token, rows);
      plain.step(shape.prompt_tokens + token, rows);
      for (int32_t layer = 0; layer < geometry.layers; ++layer) {
        for (int32_t head = 0; head < geometry.kv_heads; ++head) {
          std::vector<int32_t> held;
          for (const PlainEntry& entry : plain.lane(layer, head).entries) held.push_back(entry.position);
          ASSERT_EQ(sequence.positions(layer, head), held)
              << "token " << token << " layer " << layer << " head " << head;
        }
      }
      ASSERT_EQ(sequence.evictor().evicted_entries(), plain.evicted());
    }
  }

  // One lane of one head, its entries given; the positions of the entries that go for the next tokens, in order.
  std::vector<int32_t> gone(const Planned& policy, const Shape& shape, const LaneStart& start, int32_t tokens) {
    EvictingSequence sequence(*backend_, policy, options_of(shape));
    sequence.start_layer(0, shape.prompt_tokens, {start});
    std::vector<int32_t> result;
    std::vector<int32_t> before = sequence.positions(0, 0);
    for (int32_t token = 0; token < tokens; ++token) {
      const int32_t position = shape.prompt_tokens + token;
      sequence.step(position, {.q = {numbers(shape.q_heads * shape.geometry.head_dim)},
                               .k = {std::vector<float>(static_cast<size_t>(shape.geometry.head_dim), 0.0f)}});
      const std::vector<int32_t> after = sequence.positions(0, 0);
      EXPECT_EQ(after.back(), position);
      std::set_difference(before.begin(), before.end(), after.begin(), after.end(), std::back_inserter(result));
      before = after;
    }
    return result;
  }

  std::mt19937 random_{17};
  std::unique_ptr<Backend> backend_ = test::make_tested_backend();
};

constexpr PolicyKind kEvicting[] = {PolicyKind::kStreamingLlm, PolicyKind::kH2o,    PolicyKind::kSnapKv,
                                    PolicyKind::kPyramidKv,    PolicyKind::kL2Norm, PolicyKind::kTova,
                                    PolicyKind::kKeyDiff,      PolicyKind::kRandom, PolicyKind::kAdaSnapKv,
                                    PolicyKind::kAdaPyramidKv, PolicyKind::kFunnel};

// One lane, ten prompt tokens, all of them kept, no room for another.
constexpr Shape kOneLane{.geometry = {.layers = 1, .kv_heads = 1, .head_dim = 4, .page_bytes = 128},
                         .q_heads = 1,
                         .prompt_tokens = 10,
                         .max_tokens = 20};

LaneStart ten_entries(std::vector<float> scores) {
  LaneStart lane{.scores = std::move(scores), .keys = std::vector<float>(40, 0.25f)};
  lane.positions.resize(10);
  std::iota(lane.positions.begin(), lane.positions.end(), 0);
  return lane;
}

TEST_F(EvictorTest, EveryPolicyDropsWhatAPlainSimulationDrops) {
  for (int round = 0; round < 48; ++round) {
    const PolicyKind kind = kEvicting[static_cast<size_t>(round) % std::size(kEvicting)];
    const Shape shape = draw_shape();
    const Planned policy = planned_total(draw_spec(kind, shape), shape);
    if (!policy.plan.evicts_while_generating) continue;
    SCOPED_TRACE(testing::Message() << policy_row(kind).name << " round " << round);
    compare(policy, shape);
    if (HasFatalFailure()) return;
  }
}

// As policies may have them that give every lane its own budget. tova's lanes are alike: it averages over all of them.
TEST_F(EvictorTest, LanesOfOneLayerMayHaveLimitsOfTheirOwn) {
  for (int round = 0; round < 42; ++round) {
    const PolicyKind kind = kEvicting[static_cast<size_t>(round) % std::size(kEvicting)];
    if (kind == PolicyKind::kTova) continue;
    const Shape shape = draw_shape();
    Planned policy = planned_total(draw_spec(kind, shape), shape);
    if (!policy.plan.evicts_while_generating) continue;
    policy.plan.shared_budgets.clear();
    policy.plan.shared_limits.clear();
    int32_t floor = std::max(1, policy.plan.window_tokens) + 1;
    for (const TokenSpan& span : policy.plan.kept_spans) floor += span.end - span.begin;
    for (size_t lane = 0; lane < policy.plan.lane_limits.size(); ++lane) {
      policy.plan.lane_budgets[lane] = between(std::min(floor, shape.prompt_tokens), shape.prompt_tokens);
      policy.plan.lane_limits[lane] = std::max(floor, policy.plan.lane_budgets[lane] + between(0, 8));
    }
    SCOPED_TRACE(testing::Message() << policy_row(kind).name << " round " << round);
    compare(policy, shape);
    if (HasFatalFailure()) return;
  }
}

// What a lane got of its layer's total is its limit.
TEST_F(EvictorTest, LanesThatShareStayAsTheCutLeftThem) {
  int32_t shared = 0;
  for (int round = 0; round < 84; ++round) {
    const PolicyKind kind = kEvicting[static_cast<size_t>(round) % std::size(kEvicting)];
    if (kind == PolicyKind::kTova) continue;
    const Shape shape = draw_shape();
    const Planned policy = planned_total(draw_spec(kind, shape), shape, test::LaneShape::kTotals);
    if (!policy.plan.evicts_while_generating || shape.geometry.kv_heads == 1) continue;
    for (int32_t layer = 0; layer < shape.geometry.layers; ++layer) shared += policy.plan.shares(layer) ? 1 : 0;
    SCOPED_TRACE(testing::Message() << policy_row(kind).name << " round " << round);
    compare(policy, shape);
    if (HasFatalFailure()) return;
  }
  EXPECT_GT(shared, 10);
}

// So that others may have the backend between them: every step of a refresh is bounded, and returns what it did.
TEST_F(EvictorTest, ScoresAreMadeAnewInSteps) {
  Shape shape{.geometry = {.layers = 3, .kv_heads = 2, .head_dim = 8, .page_bytes = 128},
              .q_heads = 4,
              .prompt_tokens = 50,
              .max_tokens = 30,
              .interval_tokens = 1,
              .most_step_work = 2000};
  PolicySpec spec = spec_of(PolicyKind::kSnapKv, 50);
  spec.params.window_tokens = 40;
  const Planned policy = planned_total(spec, shape);
  EvictingSequence sequence(*backend_, policy, options_of(shape));
  for (int32_t layer = 0; layer < shape.geometry.layers; ++layer) {
    const std::vector<LaneStart> lanes(2, draw_lane(policy, shape, 50, true));
    sequence.start_layer(layer, shape.prompt_tokens, lanes);
  }
  sequence.step(50, draw_token(shape));
  Evictor& evictor = sequence.evictor();
  ASSERT_TRUE(evictor.needs_refresh());
  int64_t work = 0, most = 0, steps = 0;
  for (; evictor.needs_refresh(); ++steps) {
    const int64_t done = sequence.refresh(1);
    most = std::max(most, done);
    work += done;
  }
  const int64_t observed = int64_t{3} * 40 * 50 * 2 * shape.q_heads * shape.geometry.head_dim;
  EXPECT_GE(work, observed);
  EXPECT_LE(work, observed + observed / 2);
  EXPECT_LE(most, 50 * 2 * 8 * 8);  // a row is not divided, nor is moving a layer's entries
  EXPECT_GE(steps, 3 * 40);
}

TEST_F(EvictorTest, TheLowestScoreGoesAndOfEqualsTheLatest) {
  PolicySpec spec = spec_of(PolicyKind::kL2Norm, 10);
  spec.params.window_tokens = 3;
  const Planned policy = planned_total(spec, kOneLane);
  // Positions 8 and 9 are in the window of the first new token, 7 is not; 9 only leaves it later. New keys have no
  // length, so their entries score best.
  const LaneStart start = ten_entries({-2, -5, -5, -1, -3, -5, -4, -6, -9, -8});
  EXPECT_THAT(gone(policy, kOneLane, start, 6), ElementsAre(7, 8, 9, 5, 2, 1));
}

TEST_F(EvictorTest, PinsAndSinksNeverGo) {
  PolicySpec spec = spec_of(PolicyKind::kRandom, 10);
  spec.params.window_tokens = 1;
  spec.params.sink_tokens = 2;
  spec.pins = {{4, 6}, {9, 10}};
  const Planned policy = planned_total(spec, kOneLane);
  // Any draw is above these scores.
  const LaneStart start = ten_entries({-9, -9, -1, -2, -9, -9, -3, -4, -5, -9});
  EXPECT_THAT(gone(policy, kOneLane, start, 5), ElementsAre(8, 7, 6, 3, 2));
}

TEST_F(EvictorTest, WithoutAWindowTheOldestGoesButForTheSinks) {
  PolicySpec spec = spec_of(PolicyKind::kStreamingLlm, 10);
  spec.params.sink_tokens = 3;
  const Planned policy = planned_total(spec, kOneLane);
  const LaneStart start = ten_entries({0, 1, 2, 3, 4, 5, 6, 7, 8, 9});
  EXPECT_THAT(gone(policy, kOneLane, start, 9), ElementsAre(3, 4, 5, 6, 7, 8, 9, 10, 11));
}

TEST_F(EvictorTest, WhereNothingButTheWindowIsThereTheOldestGoes) {
  PolicySpec spec = spec_of(PolicyKind::kSnapKv, 10);
  spec.params.window_tokens = 9;
  spec.pins = {{0, 1}};
  const Planned policy = planned_total(spec, kOneLane);
  LaneStart start = ten_entries(std::vector<float>(10, kNone));
  EXPECT_THAT(gone(policy, kOneLane, start, 4), ElementsAre(1, 2, 3, 4));
}

TEST_F(EvictorTest, ALaneGrowsToItsLimitBeforeAnythingGoes) {
  Shape shape = kOneLane;
  PolicySpec spec = spec_of(PolicyKind::kL2Norm, 14);
  spec.params.window_tokens = 1;
  const Planned policy = planned_total(spec, shape);
  const LaneStart start = ten_entries({-1, -2, -3, -4, -5, -6, -7, -8, -9, -10});
  EXPECT_THAT(gone(policy, shape, start, 4), ElementsAre());
  EXPECT_THAT(gone(policy, shape, start, 6), ElementsAre(9, 8));
}

}  // namespace
}  // namespace pkv
