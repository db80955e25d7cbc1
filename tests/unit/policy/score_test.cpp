// What every policy scores: golden scores and selections, plain recomputation on random lanes, and that an entry is
// scored alike whether it comes with the prompt or while tokens are generated.
#include <cmath>
#include <set>

#include "gmock/gmock.h"
#include "kernels/entry_score.h"
#include "tests/support/backend_array.h"
#include "tests/support/tested_backend.h"
#include "tests/unit/policy/policy_specs.h"
#include "tests/unit/policy/scored_layer.h"

namespace pkv {
namespace {

using ::testing::Each;

struct SelectionCase {
  PoolKind pooling;
  int32_t kernel;
  GroupReduce aggregation;
  int32_t budget;
  std::vector<int32_t> kept;
  double recall;
};
#include "tests/unit/policy/selection_cases.inc"

struct ScoreCase {
  PolicyKind kind;
  H2oScore h2o_score;
  int32_t window, sinks;
  std::vector<double> scores;
  struct Kept {
    int32_t budget;
    std::vector<int32_t> slots;
  };
  std::vector<Kept> kept;
};
const ScoreCase kScoreCases[] = {
#include "tests/unit/policy/score_cases.inc"
};

class ScoreTest : public ::testing::Test {
 protected:
  std::unique_ptr<CachePolicy> make(PolicyKind kind, H2oScore h2o_score = H2oScore::kSum) {
    PolicySpec spec = spec_of(kind, 1000);
    spec.params.h2o_score = h2o_score;
    spec.params.seed = 5;
    return policy_of(spec);
  }

  std::mt19937 random_{23};
  std::unique_ptr<Backend> backend_ = test::make_tested_backend();
};

TEST_F(ScoreTest, EqualsTheGoldenScoresAndSelections) {
  LayerInput toy{.tokens = kTokens, .q_heads = 2, .kv_heads = 1, .head_dim = kDims};
  toy.k.assign(std::begin(kKeys), std::end(kKeys));
  for (int32_t row = 0; row < kTokens; ++row) {
    toy.q.insert(toy.q.end(), kFirstQueries + row * kDims, kFirstQueries + (row + 1) * kDims);
    toy.q.insert(toy.q.end(), kSecondQueries + row * kDims, kSecondQueries + (row + 1) * kDims);
  }
  ScoredLayer layer(*backend_, toy);
  for (const ScoreCase& golden : kScoreCases) {
    const std::vector<float> scores = layer.score(*make(golden.kind, golden.h2o_score)).scores[0];
    const std::string_view name = policy_row(golden.kind).name;
    ASSERT_EQ(scores.size(), golden.scores.size()) << name;
    for (size_t slot = 0; slot < scores.size(); ++slot) ASSERT_NEAR(scores[slot], golden.scores[slot], 2e-6) << name;
    for (const ScoreCase::Kept& kept : golden.kept) {
      EXPECT_EQ(best_entries(scores, kept.budget, golden.window, golden.sinks), kept.slots) << name << kept.budget;
    }
  }
}

// ---- plain recomputation

// Attention of the rows from `first_row` on, summed over rows, averaged over the query heads [first, first + count).
std::vector<double> mean_mass(const LayerInput& layer, int32_t first_row, int32_t first_head, int32_t heads) {
  std::vector<double> mass(static_cast<size_t>(layer.tokens), 0.0);
  for (int32_t row = std::max(0, first_row); row < layer.tokens; ++row) {
    for (int32_t head = first_head; head < first_head + heads; ++head) {
      const std::vector<double> weights = attention(layer, row, head);
      for (size_t slot = 0; slot < mass.size(); ++slot) mass[slot] += weights[slot] / heads;
    }
  }
  return mass;
}

double length_of(std::span<const float> vector) {
  return std::sqrt(std::inner_product(vector.begin(), vector.end(), vector.begin(), 0.0));
}

std::vector<double> cosines_to_mean(const LayerInput& layer, int32_t kv_head) {
  std::vector<double> mean(static_cast<size_t>(layer.head_dim), 0.0), cosines;
  for (int32_t slot = 0; slot < layer.tokens; ++slot) {
    const auto key = layer.key(slot, kv_head);
    for (size_t i = 0; i < mean.size(); ++i) mean[i] += key[i] / length_of(key) / layer.tokens;
  }
  const double mean_length = std::sqrt(std::inner_product(mean.begin(), mean.end(), mean.begin(), 0.0));
  for (int32_t slot = 0; slot < layer.tokens; ++slot) {
    const auto key = layer.key(slot, kv_head);
    cosines.push_back(std::inner_product(mean.begin(), mean.end(), key.begin(), 0.0) / mean_length / length_of(key));
  }
  return cosines;
}

void expect_near(const std::vector<float>& got, const std::vector<double>& want, const char* what) {
  ASSERT_EQ(got.size(), want.size()) << what;
  for (size_t slot = 0; slot < got.size(); ++slot) {
    ASSERT_NEAR(got[slot], want[slot], 1e-5 * (1 + std::abs(want[slot]))) << what << " slot " << slot;
  }
}

TEST_F(ScoreTest, H2oAddsUpTheColumnsOfTheWholeAttentionMatrix) {
  for (int round = 0; round < 40; ++round) {
    const LayerInput input = random_layer(random_);
    ScoredLayer layer(*backend_, input);
    const Scored sum = layer.score(*make(PolicyKind::kH2o)),
                 mean = layer.score(*make(PolicyKind::kH2o, H2oScore::kMean));
    const int32_t group = input.q_heads / input.kv_heads;
    for (int32_t head = 0; head < input.kv_heads; ++head) {
      std::vector<double> want = mean_mass(input, 0, head * group, group);
      const auto lane = static_cast<size_t>(head);
      expect_near(sum.mass[lane], want, "mass");
      EXPECT_EQ(sum.scores[lane], sum.mass[lane]);
      EXPECT_EQ(mean.mass[lane], sum.mass[lane]);
      EXPECT_NEAR(std::accumulate(sum.mass[lane].begin(), sum.mass[lane].end(), 0.0), input.tokens, 1e-4);
      for (int32_t slot = 0; slot < input.tokens; ++slot) want[static_cast<size_t>(slot)] /= input.tokens - slot;
      expect_near(mean.scores[lane], want, "mean");
    }
  }
}

TEST_F(ScoreTest, TovaAveragesTheLastRowOverAllHeads) {
  for (int round = 0; round < 40; ++round) {
    const LayerInput input = random_layer(random_);
    const Scored scored = ScoredLayer(*backend_, input).score(*make(PolicyKind::kTova));
    expect_near(scored.scores[0], mean_mass(input, input.tokens - 1, 0, input.q_heads), "tova");
    EXPECT_THAT(scored.scores, Each(scored.scores[0]));
    EXPECT_THAT(scored.mass, Each(scored.scores[0]));
  }
}

TEST_F(ScoreTest, WindowPoliciesAddUpTheNewestRows) {
  for (int round = 0; round < 60; ++round) {
    const LayerInput input = random_layer(random_);
    PolicySpec spec = spec_of(round % 2 == 0 ? PolicyKind::kSnapKv : PolicyKind::kPyramidKv, 1000);
    spec.params.window_tokens = 1 + round % 9;
    spec.params.pooling = PoolKind::kNone;
    const Scored scored = ScoredLayer(*backend_, input).score(*policy_of(spec));
    const int32_t group = input.q_heads / input.kv_heads, past = input.tokens - spec.params.window_tokens;
    for (int32_t head = 0; head < input.kv_heads; ++head) {
      const auto lane = static_cast<size_t>(head);
      expect_near(scored.mass[lane], mean_mass(input, past, head * group, group), "mass");  // shorter prompts as well
      for (int32_t slot = 0; slot < past; ++slot) {
        ASSERT_EQ(scored.scores[lane][static_cast<size_t>(slot)], scored.mass[lane][static_cast<size_t>(slot)]);
      }
    }
  }
}

TEST_F(ScoreTest, KeyPoliciesScoreEveryEntry) {
  for (int round = 0; round < 40; ++round) {
    const LayerInput input = random_layer(random_);
    ScoredLayer layer(*backend_, input);
    const Scored norms = layer.score(*make(PolicyKind::kL2Norm)), cosines = layer.score(*make(PolicyKind::kKeyDiff));
    for (int32_t head = 0; head < input.kv_heads; ++head) {
      std::vector<double> want;
      for (int32_t slot = 0; slot < input.tokens; ++slot) want.push_back(-length_of(input.key(slot, head)));
      expect_near(norms.scores[static_cast<size_t>(head)], want, "l2norm");
      want = cosines_to_mean(input, head);
      for (double& value : want) value = -value;
      expect_near(cosines.scores[static_cast<size_t>(head)], want, "keydiff");
    }
  }
}

// ---- entries that come one by one

LayerInput first_tokens(const LayerInput& whole, int32_t tokens) {
  LayerInput part = whole;
  part.tokens = tokens;
  part.q.resize(static_cast<size_t>(tokens * whole.q_heads * whole.head_dim));
  part.k.resize(static_cast<size_t>(tokens * whole.kv_heads * whole.head_dim));
  return part;
}

struct NewEntry {
  std::span<const float> key;
  int32_t layer = 0;
  int32_t kv_head = 0;
  int32_t position = 0;
  std::vector<float>& lane_state;  // in and out
};

// What the backend makes of it by the policy's rule.
float new_entry_score(Backend& backend, const CachePolicy& policy, const NewEntry& entry) {
  const DecodeRule rule = policy.decode_rule();
  const int32_t heads = entry.kv_head + 1;
  const auto d = static_cast<int64_t>(entry.key.size()), lanes = int64_t{entry.layer + 1} * heads;
  const auto allocate = [&](int64_t rows, int64_t cols, DType dtype) {
    auto tensor = backend.allocate(rows, cols, dtype);
    EXPECT_TRUE(tensor.ok());
    return *std::move(tensor);
  };
  const Tensor score = allocate(1, 1, DType::kF32), position = allocate(1, 1, DType::kI32);
  const Tensor states = allocate(lanes, d, DType::kF32), keys = allocate(1, heads * d, DType::kF32);
  const TensorView state = states.view().slice_rows(lanes - 1, 1);
  if (!entry.lane_state.empty()) backend.upload(state, entry.lane_state.data());
  backend.upload(keys.view().slice_cols(entry.kv_head * d, d), entry.key.data());
  // Every lane has its only entry in the same place; that of the last lane comes last.
  const test::BackendArray<Lane> step_lanes(backend, std::vector<Lane>(static_cast<size_t>(heads), Lane{.length = 1}));
  const test::BackendArray<EvictingRow> rows(backend, {{.scores = score.view().f32(),
                                                        .positions = position.view().i32(),
                                                        .key_sums = states.view().f32(),
                                                        .seed = rule.seed,
                                                        .position = entry.position,
                                                        .rank = rule.rank,
                                                        .new_score = rule.new_score}});
  const EvictingStep step{.rows = rows.data(),
                          .count = 1,
                          .lanes = step_lanes.data(),
                          .lanes_per_layer = heads,
                          .first_layer = entry.layer,
                          .layers = 1,
                          .kv_heads = heads};
  backend.choose_slots(step);
  backend.score_new_entries(step, keys.view());
  float result = 0;
  backend.fetch({&result, score.view()});
  if (!entry.lane_state.empty()) backend.fetch({entry.lane_state.data(), state});
  return result;
}

TEST_F(ScoreTest, ANewEntryIsScoredAsIfItHadComeWithThePrompt) {
  for (const PolicyKind kind :
       {PolicyKind::kStreamingLlm, PolicyKind::kL2Norm, PolicyKind::kKeyDiff, PolicyKind::kRandom}) {
    const auto policy = make(kind);
    ASSERT_EQ(policy->decode_rule().scoring(), DecodeRule::Scoring::kOnEntry);
    for (int round = 0; round < 30; ++round) {
      const LayerInput whole = random_layer(random_);
      if (whole.tokens < 6) continue;
      const LayerInput prompt = first_tokens(whole, whole.tokens - 5);
      Scored scored = ScoredLayer(*backend_, prompt).score(*policy);
      for (int32_t position = prompt.tokens; position < whole.tokens; ++position) {
        const LayerInput so_far = first_tokens(whole, position + 1);
        const Scored want = ScoredLayer(*backend_, so_far).score(*policy);
        for (int32_t head = 0; head < whole.kv_heads; ++head) {
          const auto lane = static_cast<size_t>(head);
          const float got = new_entry_score(*backend_, *policy,
                                            {.key = whole.key(position, head),
                                             .layer = ScoredLayer::kLayer,
                                             .kv_head = head,
                                             .position = position,
                                             .lane_state = scored.lane_state[lane]});
          ASSERT_NEAR(got, want.scores[lane].back(), 1e-5) << policy_row(kind).name;
          for (size_t i = 0; i < scored.lane_state[lane].size(); ++i) {
            ASSERT_NEAR(scored.lane_state[lane][i], want.lane_state[lane][i], 1e-4);
          }
        }
      }
    }
  }
}

TEST_F(ScoreTest, H2oRanksByTheQueriesThatCouldSeeAnEntry) {
  EXPECT_EQ(entry_rank(make(PolicyKind::kH2o)->decode_rule().rank, 3.0f, 4), 3.0f);
  EXPECT_EQ(entry_rank(make(PolicyKind::kH2o, H2oScore::kMean)->decode_rule().rank, 3.0f, 4), 0.75f);
}

TEST_F(ScoreTest, KeysWithoutLengthAreLikeNothing) {
  LayerInput input{.tokens = 6, .q_heads = 1, .kv_heads = 1, .head_dim = 4};
  input.q.assign(24, 1.0f);
  input.k.assign(24, 0.0f);
  const auto policy = make(PolicyKind::kKeyDiff);
  Scored scored = ScoredLayer(*backend_, input).score(*policy);
  EXPECT_THAT(scored.scores[0], Each(0.0f));
  const std::vector<float> none(4, 0.0f), key = {3.0f, 0.0f, 4.0f, 0.0f};
  EXPECT_EQ(new_entry_score(*backend_, *policy, {.key = none, .lane_state = scored.lane_state[0]}), 0.0f);
  EXPECT_FLOAT_EQ(new_entry_score(*backend_, *policy, {.key = key, .lane_state = scored.lane_state[0]}), -1.0f);
  EXPECT_THAT(scored.lane_state[0], ::testing::ElementsAre(0.6f, 0.0f, 0.8f, 0.0f));
}

TEST_F(ScoreTest, RandomDrawsAreUniformAndTheirOwnInEveryLane) {
  const auto policy = make(PolicyKind::kRandom);
  PolicySpec other_spec = spec_of(PolicyKind::kRandom, 1000);
  other_spec.params.seed = 6;
  const auto other = policy_of(other_spec);
  constexpr int kDraws = 20000, kBins = 20;
  const uint64_t seed = policy->decode_rule().seed, other_seed = other->decode_rule().seed;
  ASSERT_NE(seed, other_seed);
  for (const auto& [layer, kv_head] : {std::pair(0, 0), std::pair(0, 1), std::pair(1, 0), std::pair(29, 2)}) {
    std::vector<int> histogram(kBins, 0);
    int above_neighbour = 0;
    for (int32_t position = 0; position < kDraws; ++position) {
      const float draw = entry_hash(seed, layer, kv_head, position);
      ASSERT_GE(draw, 0.0f);
      ASSERT_LT(draw, 1.0f);
      ++histogram[static_cast<size_t>(draw * kBins)];
      // Another lane, and another seed: no relation.
      above_neighbour += draw > entry_hash(seed, layer, kv_head + 1, position);
      above_neighbour += draw > entry_hash(other_seed, layer, kv_head, position);
    }
    // Six standard deviations of a binomial distribution.
    for (const int count : histogram) EXPECT_NEAR(count, kDraws / kBins, 6 * std::sqrt(kDraws / kBins));
    EXPECT_NEAR(above_neighbour, kDraws, 6 * std::sqrt(kDraws / 2.0));
  }
}

}  // namespace
}  // namespace pkv
