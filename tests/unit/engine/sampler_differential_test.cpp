// Tens of thousands of random choices, each against the plain definition: the same token, the same random numbers used,
// the same log-probabilities, whatever the filters, penalties, ties and infinities, the backend and the batch.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "tests/unit/engine/plain_sampler.h"
#include "tests/unit/engine/row_sampler.h"

namespace pkv::test {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

class Chance {
 public:
  explicit Chance(uint32_t seed) : random_(seed) {}
  uint32_t below(uint32_t end) { return random_() % end; }
  bool one_in(uint32_t n) { return below(n) == 0; }
  template <typename T>
  T of(std::initializer_list<T> values) {
    return values.begin()[below(static_cast<uint32_t>(values.size()))];
  }
  float normal() { return normal_(random_); }

 private:
  std::mt19937 random_;
  std::normal_distribution<float> normal_;
};

std::vector<float> random_logits(Chance& chance, int32_t vocabulary) {
  std::vector<float> logits(static_cast<size_t>(vocabulary));
  const float deviation = chance.of({0.0f, 0.01f, 1.0f, 3.0f, 3.0f, 8.0f, 40.0f, 1e6f, 1e37f});
  for (float& logit : logits) logit = deviation * chance.normal();
  const uint32_t kind = chance.below(8);
  for (size_t i = 0; i < logits.size(); ++i) {
    if (kind == 0) logits[i] = std::round(logits[i]);             // ties
    if (kind == 1 && !chance.one_in(20)) logits[i] = -kInfinity;  // few are possible
    if (kind == 2 && chance.one_in(3)) logits[i] = chance.of({-kInfinity, 0.0f, -0.0f});
    if (kind == 3 && i % 300 == 7) logits[i] += 4 * deviation;  // some stand out
  }
  if (chance.one_in(40)) logits.assign(logits.size(), -kInfinity);
  if (chance.one_in(40)) logits[chance.below(static_cast<uint32_t>(vocabulary))] = kInfinity;
  return logits;
}

std::shared_ptr<Request> random_request(Chance& chance, int32_t vocabulary, int32_t max_tokens) {
  const auto token = [&] { return static_cast<TokenId>(chance.below(static_cast<uint32_t>(vocabulary))); };
  auto request = std::make_shared<Request>();
  for (uint32_t i = 0, n = 1 + chance.below(60); i < n; ++i) request->prompt.push_back(token());
  SamplingParams& params = request->sampling;
  params.max_tokens = max_tokens;
  params.temperature = chance.of({0.0f, 0.0f, 1.0f, 1.0f, 0.7f, 0.05f, 2.5f, 100.0f, 1e-40f});
  params.top_k = chance.of({0, 0, 0, 1, 2, 40, 254, 255, 256, 257, 1000, vocabulary, vocabulary + 5});
  params.top_p = chance.of({1.0f, 1.0f, 0.9f, 0.95f, 0.5f, 0.999999f, 1e-6f});
  params.min_p = chance.of({0.0f, 0.0f, 0.0f, 0.1f, 1e-4f, 0.999f});
  if (chance.one_in(3)) params.repetition_penalty = chance.of({1.3f, 0.7f, 2.0f});
  if (chance.one_in(3)) params.frequency_penalty = chance.of({0.5f, -0.3f, 2.0f});
  if (chance.one_in(3)) params.presence_penalty = chance.of({0.25f, -2.0f});
  if (chance.one_in(3)) {
    for (TokenId id = token() % 7; id < vocabulary && params.logit_bias.size() < 30; id += 1 + token() % 50) {
      params.logit_bias.emplace_back(id, chance.of({-100.0f, -1.5f, 2.0f, 100.0f, 0.0f}));
    }
  }
  if (chance.one_in(3)) {
    params.min_tokens = static_cast<int32_t>(chance.below(4));
    params.stop_token_ids = {token(), token()};
    request->end_tokens = {0, vocabulary + 3};  // a model's own may be outside
    if (chance.one_in(4)) {
      params.stop_token_ids.resize(static_cast<size_t>(vocabulary));  // nothing is possible
      std::iota(params.stop_token_ids.begin(), params.stop_token_ids.end(), 0);
    }
  }
  request->logprobs = chance.one_in(2);
  if (request->logprobs) request->top_logprobs = std::min(vocabulary, chance.of({0, 1, 20}));
  return request;
}

float log_sum_exp(Backend& backend, const std::vector<float>& logits) {
  const auto tensor = [&](int64_t words) { return *backend.allocate(1, words, DType::kF32); };
  const Tensor row = tensor(static_cast<int64_t>(logits.size())), lse = tensor(1), target = tensor(1),
               wanted = tensor(2);
  const LogprobRow want{.ranked = 0};
  backend.upload(row.view(), logits.data());
  backend.upload(wanted.view(), &want);
  backend.token_logprobs({.logits = row.view(),
                          .rows = row_as<LogprobRow>(wanted.view(), 0),
                          .log_sum_exp = lse.view(),
                          .target = target.view(),
                          .ranked = {}});
  float value = 0;
  backend.fetch({&value, lse.view()});
  return value;
}

void expect_same(const TokenLogprob& actual, const TokenLogprob& expected) {
  const auto same = [](float a, float b) { return a == b || (std::isnan(a) && std::isnan(b)); };
  EXPECT_EQ(actual.id, expected.id);
  EXPECT_TRUE(same(actual.logprob, expected.logprob)) << actual.logprob << " " << expected.logprob;
  ASSERT_EQ(actual.top.size(), expected.top.size());
  for (size_t i = 0; i < actual.top.size(); ++i) {
    EXPECT_EQ(actual.top[i].first, expected.top[i].first) << i;
    EXPECT_TRUE(same(actual.top[i].second, expected.top[i].second)) << i;
  }
}

struct Setting {
  const char* name;
  BackendOptions backend;
  int32_t vocabulary, batches;
};

class SamplerDifferential : public testing::TestWithParam<Setting> {};

TEST_P(SamplerDifferential, ChoosesAsDefined) {
  const Setting& setting = GetParam();
  constexpr int32_t kRows = 9, kTile = 4, kTokens = 5;
  const std::unique_ptr<Backend> made = *make_backend(setting.backend);
  Backend& backend = *made;
  RowSampler sampler(backend, setting.vocabulary, kTile, kRows);
  Chance chance(static_cast<uint32_t>(setting.vocabulary));
  int64_t choices = 0;
  for (int32_t batch = 0; batch < setting.batches && !testing::Test::HasFailure(); ++batch) {
    std::vector<RowSampler::Answer> answers;
    std::vector<std::mt19937_64> plain_rng;
    for (int32_t i = 0; i < kRows; ++i) {
      const uint64_t seed = static_cast<uint64_t>(batch * kRows + i);
      answers.push_back(sampler.start(random_request(chance, setting.vocabulary, kTokens), seed));
      plain_rng.emplace_back(seed);
    }
    for (int32_t step = 0; step < kTokens; ++step) {
      std::vector<std::vector<float>> logits;
      for (int32_t i = 0; i < kRows; ++i) logits.push_back(random_logits(chance, setting.vocabulary));
      const std::vector<std::vector<float>> kept = logits;
      const std::vector<TokenLogprob> tokens = sampler.next(answers, std::move(logits));
      for (size_t i = 0; i < kRows; ++i, ++choices) {
        SCOPED_TRACE(absl::StrCat("batch ", batch, " step ", step, " row ", i));
        RowSampler::Answer& answer = answers[i];
        const Request& request = *answer.request;
        const std::span<const TokenId> before = std::span(answer.tokens).first(answer.tokens.size() - 1);
        const std::unordered_set<TokenId> ending = ending_tokens(request);
        const std::vector<TokenId> ends(ending.begin(), ending.end());
        const bool no_end = step < request.sampling.min_tokens;
        std::vector<float> edited = kept[i];
        const TokenId id =
            plain_sample({.logits = edited,
                          .prompt = request.prompt,
                          .generated = before,
                          .forbidden = no_end ? std::span<const TokenId>(ends) : std::span<const TokenId>()},
                         request.sampling, plain_rng[i]);
        EXPECT_EQ(answer.rng, plain_rng[i]) << "another number of random numbers";
        TokenLogprob expected{.id = id};
        if (request.logprobs) {
          expected = plain_logprob(kept[i], log_sum_exp(backend, kept[i]), id, request.top_logprobs);
        }
        expect_same(tokens[i], expected);
        answer.tokens.back() = id;
      }
    }
  }
  EXPECT_EQ(choices, int64_t{setting.batches} * kRows * kTokens);
}

INSTANTIATE_TEST_SUITE_P(
    Settings, SamplerDifferential,
    testing::Values(Setting{"reference_1", {.device = "reference"}, 1, 20},
                    Setting{"reference_300", {.device = "reference"}, 300, 60},
                    Setting{"cpu_2", {.device = "cpu", .threads = 2}, 2, 40},
                    Setting{"cpu_257", {.device = "cpu", .threads = 2}, 257, 250},
                    Setting{"cpu_1000", {.device = "cpu", .threads = 2}, 1000, 250},
                    Setting{"cpu_5000", {.device = "cpu", .threads = 1}, 5000, 120},
                    Setting{"cpu_scalar_700", {.device = "cpu", .threads = 1, .isa = "scalar"}, 700, 60}),
    [](const auto& test) { return std::string(test.param.name); });

}  // namespace
}  // namespace pkv::test
