// The sampler: every filter, ties, penalties and log-probabilities, on vocabularies small enough to compute by hand.
#include "server/engine/sampler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <set>

#include "kernels/reference/reference_backend.h"
#include "tests/unit/engine/row_sampler.h"

namespace pkv::test {
namespace {

using testing::ElementsAre;

struct Case {
  std::vector<float> logits;
  SamplingParams params;
  std::vector<TokenId> prompt, generated, forbidden;
};

class Choices {
 public:
  explicit Choices(const Case& c)
      : logits_(c.logits), generated_(c.generated), sampler_(*backend_, static_cast<int32_t>(c.logits.size()), 1, 1) {
    auto request = std::make_shared<Request>();
    request->prompt = c.prompt;
    request->sampling = c.params;
    request->sampling.stop_token_ids = c.forbidden;
    if (!c.forbidden.empty()) request->sampling.min_tokens = 1000;
    request_ = std::move(request);
  }

  TokenId choose(std::mt19937_64& rng) {
    RowSampler::Answer answer[] = {sampler_.start(request_)};
    // Its answer comes token by token.
    for (const TokenId token : generated_) {
      sampler_.next(answer, {logits_});
      answer[0].tokens.back() = token;
    }
    answer[0].rng = rng;
    const TokenId token = sampler_.next(answer, {logits_})[0].id;
    rng = answer[0].rng;
    return token;
  }

 private:
  std::unique_ptr<Backend> backend_ = make_reference_backend();
  std::vector<float> logits_;
  std::vector<TokenId> generated_;
  std::shared_ptr<const Request> request_;
  RowSampler sampler_;
};

TokenId sample_once(const Case& c, uint64_t seed = 1) {
  std::mt19937_64 rng(seed);
  return Choices(c).choose(rng);
}

// How often each token comes in `draws` draws of one generator.
std::map<TokenId, int> histogram(const Case& c, int draws) {
  std::mt19937_64 rng(7);
  std::map<TokenId, int> counts;
  Choices choices(c);
  for (int i = 0; i < draws; ++i) ++counts[choices.choose(rng)];
  return counts;
}

std::set<TokenId> possible_tokens(const Case& c) {
  std::set<TokenId> tokens;
  for (const auto& [token, count] : histogram(c, 4000)) tokens.insert(token);
  return tokens;
}

// Logits of a distribution.
std::vector<float> log_of(const std::vector<double>& probabilities) {
  std::vector<float> logits;
  for (const double p : probabilities) logits.push_back(static_cast<float>(std::log(p)));
  return logits;
}

TEST(Sampler, GreedyTakesTheLowestOfEqualIds) {
  EXPECT_EQ(sample_once({.logits = {1, 3, 2, 3}}), 1);
  EXPECT_EQ(sample_once({.logits = {-5, -5, -5}}), 0);
}

TEST(Sampler, GreedyUsesNoRandomNumber) {
  std::mt19937_64 rng(3), untouched(3);
  Choices({.logits = {1, 2}}).choose(rng);
  EXPECT_EQ(rng(), untouched());
}

TEST(Sampler, BiasComesBeforeTheArgmax) {
  EXPECT_EQ(sample_once({.logits = {1, 2, 3}, .params = {.logit_bias = {{0, 2.5f}}}}), 0);
  EXPECT_EQ(sample_once({.logits = {1, 2, 3}, .params = {.logit_bias = {{2, -100.0f}}}}), 1);
}

TEST(Sampler, RepetitionPenaltyCountsPromptAndAnswerOnce) {
  // 4 / 2 = 2 < 3; a second division would also put it below 1.5.
  const Case positive{.logits = {4, 3, 1.5f}, .params = {.repetition_penalty = 2}, .prompt = {0, 0}, .generated = {0}};
  EXPECT_EQ(sample_once(positive), 1);
  const Case once{.logits = {4, 1.5f}, .params = {.repetition_penalty = 2}, .prompt = {0}, .generated = {0}};
  EXPECT_EQ(sample_once(once), 0);
  // A negative logit is multiplied: -1 * 2 = -2 < -1.5.
  EXPECT_EQ(sample_once({.logits = {-1, -1.5f}, .params = {.repetition_penalty = 2}, .prompt = {0}}), 1);
}

TEST(Sampler, FrequencyAndPresencePenaltiesCountTheAnswerOnly) {
  const SamplingParams frequency{.frequency_penalty = 0.5f}, presence{.presence_penalty = 0.5f};
  EXPECT_EQ(sample_once({.logits = {3, 2}, .params = frequency, .generated = {0, 0, 0}}), 1);
  EXPECT_EQ(sample_once({.logits = {3, 2}, .params = frequency, .generated = {0}}), 0);
  EXPECT_EQ(sample_once({.logits = {3, 2}, .params = frequency, .prompt = {0, 0, 0}}), 0);
  EXPECT_EQ(sample_once({.logits = {3, 2}, .params = presence, .generated = {0, 0, 0}}), 0);
  EXPECT_EQ(sample_once({.logits = {3, 2.75f}, .params = presence, .generated = {0, 0, 0}}), 1);
}

TEST(Sampler, ForbiddenTokensNeverCome) {
  EXPECT_EQ(sample_once({.logits = {1, 9, 2}, .forbidden = {1}}), 2);
  const Case warm{.logits = {1, 9, 2}, .params = {.temperature = 1}, .forbidden = {1}};
  EXPECT_THAT(possible_tokens(warm), ElementsAre(0, 2));
}

TEST(Sampler, FrequenciesFollowTheDistribution) {
  const Case c{.logits = log_of({0.5, 0.3, 0.2}), .params = {.temperature = 1}};
  const auto counts = histogram(c, 20000);
  // Five standard deviations of a binomial count are at most 5 * sqrt(20000 / 4) = 354.
  EXPECT_NEAR(counts.at(0), 10000, 354);
  EXPECT_NEAR(counts.at(1), 6000, 354);
  EXPECT_NEAR(counts.at(2), 4000, 354);
}

TEST(Sampler, TemperatureSharpensAndFlattens) {
  // p^(1/T), normalised: T = 0.5 gives 0.64 : 0.04, T = 2 gives sqrt(0.8) : sqrt(0.2) = 2 : 1.
  EXPECT_NEAR(histogram({.logits = log_of({0.8, 0.2}), .params = {.temperature = 0.5f}}, 20000).at(1), 20000 / 17.0,
              354);
  EXPECT_NEAR(histogram({.logits = log_of({0.8, 0.2}), .params = {.temperature = 2}}, 20000).at(1), 20000 / 3.0, 354);
}

TEST(Sampler, TopKKeepsTheBestAndTheLowerIdOfEquals) {
  const SamplingParams params{.temperature = 1, .top_k = 2};
  EXPECT_THAT(possible_tokens({.logits = {1, 3, 2, 0}, .params = params}), ElementsAre(1, 2));
  EXPECT_THAT(possible_tokens({.logits = {1, 2, 1, 1}, .params = params}), ElementsAre(0, 1));
}

TEST(Sampler, TopPKeepsTheFewestThatReachTheMass) {
  const std::vector<float> logits = log_of({0.1, 0.5, 0.3, 0.1});
  EXPECT_THAT(possible_tokens({.logits = logits, .params = {.temperature = 1, .top_p = 0.4f}}), ElementsAre(1));
  EXPECT_THAT(possible_tokens({.logits = logits, .params = {.temperature = 1, .top_p = 0.6f}}), ElementsAre(1, 2));
  EXPECT_THAT(possible_tokens({.logits = logits, .params = {.temperature = 1, .top_p = 0.85f}}), ElementsAre(0, 1, 2));
}

TEST(Sampler, TopPReachesBeyondTheFirstRankedCandidates) {
  // 2000 equal tokens, half of the mass: the 1000 lowest ids, and all of those.
  const Case c{.logits = std::vector<float>(2000, 0.0f), .params = {.temperature = 1, .top_p = 0.5f}};
  const auto counts = histogram(c, 4000);
  EXPECT_LT(counts.rbegin()->first, 1001);
  EXPECT_GT(counts.rbegin()->first, 900);
}

TEST(Sampler, MinPIsRelativeToTheBest) {
  const std::vector<float> logits = log_of({0.6, 0.25, 0.1, 0.05});
  EXPECT_THAT(possible_tokens({.logits = logits, .params = {.temperature = 1, .min_p = 0.3f}}), ElementsAre(0, 1));
  EXPECT_THAT(possible_tokens({.logits = logits, .params = {.temperature = 1, .min_p = 0.1f}}), ElementsAre(0, 1, 2));
}

TEST(Sampler, TopPCountsWithinTopK) {
  // Of the best two (0.5, 0.3) the first alone has 0.625 of the mass.
  const Case c{.logits = log_of({0.5, 0.3, 0.2}), .params = {.temperature = 1, .top_p = 0.6f, .top_k = 2}};
  EXPECT_THAT(possible_tokens(c), ElementsAre(0));
}

TEST(Sampler, SameSeedSameTokens) {
  std::vector<float> logits(300);
  for (size_t i = 0; i < logits.size(); ++i) logits[i] = static_cast<float>(std::sin(static_cast<double>(i)));
  const Case c{.logits = logits, .params = {.temperature = 1.5f, .top_p = 0.9f, .min_p = 0.01f}};
  std::set<TokenId> over_seeds;
  for (uint64_t seed = 0; seed < 20; ++seed) {
    EXPECT_EQ(sample_once(c, seed), sample_once(c, seed));
    over_seeds.insert(sample_once(c, seed));
  }
  EXPECT_GT(over_seeds.size(), 5u);
}

TEST(Sampler, LogprobsAreThoseBeforeBiasPenaltiesAndFilters) {
  const std::unique_ptr<Backend> backend = make_reference_backend();
  RowSampler sampler(*backend, 3, 1, 1);
  auto request = std::make_shared<Request>();
  request->sampling = {.temperature = 1, .top_k = 1, .logit_bias = {{2, 10.0f}}};
  request->logprobs = true;
  request->top_logprobs = 2;
  for (const bool by_whole_row : {false, true}) {
    if (by_whole_row) request->sampling = {.temperature = 1e-3f, .logit_bias = {{2, 10.0f}}};
    RowSampler::Answer answer[] = {sampler.start(request)};
    const TokenLogprob token = sampler.next(answer, {log_of({0.5, 0.3, 0.2})})[0];
    EXPECT_EQ(token.id, 2);
    EXPECT_NEAR(token.logprob, std::log(0.2), 1e-6);
    ASSERT_EQ(token.top.size(), 2u);
    EXPECT_EQ(token.top[0].first, 0);
    EXPECT_NEAR(token.top[0].second, std::log(0.5), 1e-6);
    EXPECT_EQ(token.top[1].first, 1);
  }
}

// As in every ranking (kernels/sampling.h): what comes of the whole row, wherever the NaN stand.
TEST(Sampler, NotANumberCountsAsImpossible) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN(), kImpossible = -std::numeric_limits<float>::infinity();
  const std::vector<std::vector<float>> rows = {
      {kNan, 1, 2, kNan, 2}, {1, kNan, 2, 0.5f, kNan}, {kNan, kImpossible, -3, kNan},
      {kNan, kNan},          {kImpossible, kNan},      {kNan, std::numeric_limits<float>::infinity(), 1}};
  RowScratch scratch;
  const std::vector<SamplingParams> all_params = {{.temperature = 0},
                                                  {.temperature = 1},
                                                  {.temperature = 1, .top_k = 2},
                                                  {.temperature = 1, .top_p = 0.7f},
                                                  {.temperature = 1, .min_p = 0.1f}};
  for (const std::vector<float>& row : rows) {
    std::vector<float> cleaned = row;
    std::replace_if(
        cleaned.begin(), cleaned.end(), [](float logit) { return std::isnan(logit); }, kImpossible);
    std::vector<RankedToken> best;
    for (const float logit : cleaned) best.push_back({.token = static_cast<int32_t>(best.size()), .logit = logit});
    std::stable_sort(best.begin(), best.end(), [](const auto& a, const auto& b) { return a.logit > b.logit; });
    for (const SamplingParams& params : all_params) {
      for (uint64_t seed = 0; seed < 20; ++seed) {
        std::mt19937_64 rng(seed), cleaned_rng(seed), ranked_rng(seed);
        const TokenId token = choose_of_row(row, params, rng, scratch);
        EXPECT_EQ(token, choose_of_row(cleaned, params, cleaned_rng, scratch));
        EXPECT_EQ(token,
                  choose_of_best({.best = best, .vocabulary = static_cast<int32_t>(row.size())}, params, ranked_rng));
        EXPECT_EQ(rng, cleaned_rng);
        EXPECT_EQ(rng, ranked_rng);
      }
    }
  }
}

TEST(Sampler, EverythingForbiddenStillGivesAToken) {
  const Case c{.logits = {1, 2}, .params = {.temperature = 1}, .forbidden = {0, 1}};
  EXPECT_EQ(sample_once(c), 0);
}

}  // namespace
}  // namespace pkv::test
