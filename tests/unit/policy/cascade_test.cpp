// Layer by layer against one choice among all layers at the end.
#include "server/policy/cascade.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <random>
#include <tuple>

#include "gmock/gmock.h"

namespace pkv {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct Prompt {
  CachePlan plan;
  Cascade::Shape shape;
  int32_t layers = 0;
  std::vector<std::vector<float>> scores, mass;  // [layers] of [kv_heads][n]

  std::span<const float> lane(const std::vector<std::vector<float>>& of, int32_t layer, int32_t head) const {
    const auto columns = static_cast<size_t>(shape.tokens);
    return std::span(of[static_cast<size_t>(layer)]).subspan(static_cast<size_t>(head) * columns, columns);
  }
};

class CascadeTest : public ::testing::Test {
 protected:
  int32_t between(int32_t low, int32_t high) {
    return low + static_cast<int32_t>(random_() % static_cast<uint32_t>(high - low + 1));
  }
  // Scores of few values, so that many are equal within lanes and between them; a sink or two.
  Prompt draw() {
    Prompt prompt{.shape = {.kv_heads = between(1, 3), .tokens = between(12, 60)}, .layers = between(1, 8)};
    const int32_t window = between(0, 5), sinks = between(0, 2), values = between(2, 200);
    prompt.plan.window_tokens = window;
    int64_t sure = 0, most = 0;
    for (int32_t layer = 0; layer < prompt.layers; ++layer) {
      prompt.plan.smallest_lanes.push_back(between(std::max(1, window + sinks), 10));
      sure += int64_t{prompt.shape.kv_heads} * prompt.plan.smallest_lanes.back();
      most += int64_t{prompt.shape.kv_heads} * prompt.shape.tokens;
      std::vector<float>& scores = prompt.scores.emplace_back();
      std::vector<float>& mass = prompt.mass.emplace_back();
      for (int32_t i = 0; i < prompt.shape.kv_heads * prompt.shape.tokens; ++i) {
        const float score = static_cast<float>(between(0, values)) * static_cast<float>(1 + layer % 3);
        scores.push_back(i % prompt.shape.tokens < sinks ? kInfinity : score);
        mass.push_back(static_cast<float>(between(1, 9)));
      }
    }
    prompt.plan.model_budget = sure + between(0, static_cast<int32_t>(most - sure));
    return prompt;
  }

  std::mt19937 random_{19};
};

// [layers][kv_heads] positions, ascending.
using Kept = std::vector<std::vector<std::vector<int32_t>>>;

Kept chosen_at_once(const Prompt& prompt) {
  const int32_t past = prompt.shape.tokens - prompt.plan.window_tokens;
  Kept kept(static_cast<size_t>(prompt.layers));
  std::vector<std::tuple<float, int32_t, int32_t, int32_t>> others;  // minus score, layer, head, position
  int64_t free = prompt.plan.model_budget;
  for (int32_t layer = 0; layer < prompt.layers; ++layer) {
    for (int32_t head = 0; head < prompt.shape.kv_heads; ++head) {
      const std::span<const float> scores = prompt.lane(prompt.scores, layer, head);
      std::vector<int32_t> order(static_cast<size_t>(past));
      std::iota(order.begin(), order.end(), 0);
      std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
        return scores[static_cast<size_t>(a)] > scores[static_cast<size_t>(b)];
      });
      const int32_t smallest = prompt.plan.smallest_lanes[static_cast<size_t>(layer)];
      const auto sure = static_cast<size_t>(smallest - prompt.plan.window_tokens);
      free -= smallest;
      for (size_t rank = sure; rank < order.size(); ++rank) {
        others.emplace_back(-scores[static_cast<size_t>(order[rank])], layer, head, order[rank]);
      }
      order.resize(sure);
      for (int32_t position = past; position < prompt.shape.tokens; ++position) order.push_back(position);
      kept[static_cast<size_t>(layer)].push_back(std::move(order));
    }
  }
  std::sort(others.begin(), others.end());
  others.resize(std::min(others.size(), static_cast<size_t>(free)));
  for (const auto& [score, layer, head, position] : others) {
    kept[static_cast<size_t>(layer)][static_cast<size_t>(head)].push_back(position);
  }
  for (auto& layer : kept) {
    for (std::vector<int32_t>& lane : layer) std::sort(lane.begin(), lane.end());
  }
  return kept;
}

TEST_F(CascadeTest, NaNCountsAsMinusInfinity) {
  for (int round = 0; round < 50; ++round) {
    const Prompt prompt = draw();
    Cascade with_nan(prompt.plan, prompt.shape), with_infinity(prompt.plan, prompt.shape);
    for (int32_t layer = 0; layer < prompt.layers; ++layer) {
      std::vector<float> nan = prompt.scores[static_cast<size_t>(layer)], infinity = nan;
      for (size_t column = 0; column < nan.size(); column += 3) {
        nan[column] = std::numeric_limits<float>::quiet_NaN();
        infinity[column] = -std::numeric_limits<float>::infinity();
      }
      with_nan.add_layer(nan, prompt.mass[static_cast<size_t>(layer)]);
      with_infinity.add_layer(infinity, prompt.mass[static_cast<size_t>(layer)]);
      for (int32_t head = 0; head < prompt.shape.kv_heads; ++head) {
        ASSERT_EQ(with_nan.kept_positions(layer, head), with_infinity.kept_positions(layer, head));
      }
    }
  }
}

TEST_F(CascadeTest, EqualsOneChoiceAtTheEnd) {
  for (int round = 0; round < 400; ++round) {
    const Prompt prompt = draw();
    const int32_t window = prompt.plan.window_tokens;
    Cascade cascade(prompt.plan, prompt.shape);
    // What the cache would hold: positions by slot.
    Kept held;
    for (int32_t layer = 0; layer < prompt.layers; ++layer) {
      cascade.add_layer(prompt.scores[static_cast<size_t>(layer)], prompt.mass[static_cast<size_t>(layer)]);
      std::vector<int32_t> whole(static_cast<size_t>(prompt.shape.tokens));
      std::iota(whole.begin(), whole.end(), 0);
      held.emplace_back(static_cast<size_t>(prompt.shape.kv_heads), whole);
      int64_t entries = 0, later = 0;
      for (int32_t cut = 0; cut <= layer; ++cut) {
        for (const int32_t count : cascade.counts(cut)) entries += count;
        const bool last = layer + 1 == prompt.layers;
        if (cut < layer && !last && between(0, 2) == 0) continue;  // it is worth no cut now
        for (int32_t head = 0; head < prompt.shape.kv_heads; ++head) {
          std::vector<int32_t>& lane = held[static_cast<size_t>(cut)][static_cast<size_t>(head)];
          ASSERT_EQ(cascade.held(cut, head), static_cast<int32_t>(lane.size()));
          std::vector<int32_t> positions;
          for (const int32_t slot : cascade.kept_slots(cut, head)) positions.push_back(lane[static_cast<size_t>(slot)]);
          ASSERT_EQ(positions, cascade.kept_positions(cut, head));
          lane = std::move(positions);
        }
        cascade.set_cut(cut);
      }
      for (int32_t other = layer + 1; other < prompt.layers; ++other) {
        later += int64_t{prompt.shape.kv_heads} * prompt.plan.smallest_lanes[static_cast<size_t>(other)];
      }
      ASSERT_LE(entries + later, prompt.plan.model_budget) << "after layer " << layer;
    }
    EXPECT_EQ(held, chosen_at_once(prompt)) << round;
    for (int32_t layer = 0; layer < prompt.layers; ++layer) {
      for (int32_t head = 0; head < prompt.shape.kv_heads; ++head) {
        const std::vector<int32_t>& lane = held[static_cast<size_t>(layer)][static_cast<size_t>(head)];
        const std::span<const float> mass = prompt.lane(prompt.mass, layer, head);
        const std::span<const float> scores = prompt.lane(prompt.scores, layer, head);
        const std::vector<float> kept_scores = cascade.kept_scores(layer, head);
        double sum = 0;
        for (const int32_t position : lane) {
          sum += mass[static_cast<size_t>(position)];
          if (position < prompt.shape.tokens - window) {
            EXPECT_EQ(kept_scores[static_cast<size_t>(position)], scores[static_cast<size_t>(position)]);
          }
        }
        EXPECT_NEAR(cascade.recall(layer, head), sum / std::accumulate(mass.begin(), mass.end(), 0.0), 1e-9);
      }
    }
  }
}

}  // namespace
}  // namespace pkv
