// What a run of the output head costs the host: one fetch, whatever is wanted and however many tiles there are, but for
// rows that must be looked at as a whole; and what a failed backend leaves.
#include "server/engine/output_head.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "kernels/reference/reference_backend.h"
#include "tests/support/counting_backend.h"
#include "tests/unit/engine/row_sampler.h"

namespace pkv::test {
namespace {

constexpr int32_t kVocabulary = 600, kTile = 4, kRows = 10;

std::vector<std::vector<float>> random_rows(size_t count) {
  std::mt19937 random(5);
  std::normal_distribution<float> normal(0, 3);
  std::vector<std::vector<float>> rows(count, std::vector<float>(kVocabulary));
  for (std::vector<float>& row : rows) {
    for (float& logit : row) logit = normal(random);
  }
  return rows;
}

class OutputHeadTest : public testing::Test {
 protected:
  // Of one more token of ten answers to the request. The model here reads its input, once a tile.
  int64_t fetches(const SamplingParams& params, int32_t top_logprobs = -1) {
    backend_.reset();
    next_tokens(sampler_, params, top_logprobs);
    return backend_.count("fetch") - (kRows + kTile - 1) / kTile;
  }

  static std::vector<TokenId> next_tokens(RowSampler& sampler, const SamplingParams& params,
                                          int32_t top_logprobs = -1) {
    auto request = std::make_shared<Request>();
    request->prompt = {1, 2, 3};
    request->sampling = params;
    request->logprobs = top_logprobs >= 0;
    request->top_logprobs = std::max(top_logprobs, 0);
    std::vector<RowSampler::Answer> answers;
    for (int32_t i = 0; i < kRows; ++i) answers.push_back(sampler.start(request, static_cast<uint64_t>(i)));
    std::vector<TokenId> tokens;
    for (const TokenLogprob& token : sampler.next(answers, random_rows(kRows))) tokens.push_back(token.id);
    return tokens;
  }

  CountingBackend backend_{make_reference_backend()};
  RowSampler sampler_{backend_, kVocabulary, kTile, kRows};
};

TEST_F(OutputHeadTest, OneFetchForAllTiles) {
  EXPECT_EQ(fetches({}), 1);
  EXPECT_EQ(fetches({}, 20), 1);
  EXPECT_EQ(fetches({.repetition_penalty = 1.2f, .logit_bias = {{4, 1.0f}}}), 1);
  EXPECT_EQ(fetches({.temperature = 1, .top_p = 0.9f, .top_k = 40}), 1);
}

TEST_F(OutputHeadTest, ATileThatMayNeedWholeRowsIsFetchedByItself) {
  EXPECT_EQ(fetches({.temperature = 1, .top_p = 0.5f}), 3);
  EXPECT_EQ(fetches({.temperature = 1}), 3 + kRows);
}

// As many whole rows are looked at together as there are threads; what is chosen does not depend on them.
TEST_F(OutputHeadTest, WholeRowsAreLookedAtTogether) {
  for (const SamplingParams& params :
       {SamplingParams{.temperature = 1}, SamplingParams{.temperature = 3, .top_p = 0.99f},
        SamplingParams{.temperature = 2, .top_k = 300, .repetition_penalty = 1.3f}}) {
    const std::vector<TokenId> one_by_one = next_tokens(sampler_, params);
    for (const int32_t threads : {1, 2, 4}) {
      CountingBackend backend(*make_backend({.device = "cpu", .threads = threads}));
      RowSampler sampler(backend, kVocabulary, kTile, kRows);
      backend.reset();
      EXPECT_EQ(next_tokens(sampler, params), one_by_one);
      // Of each tile the model's input, the best of all rows, and then the rows.
      int64_t fetches = 0;
      for (const int32_t rows : {4, 4, 2}) fetches += 2 + (rows + threads - 1) / threads;
      EXPECT_EQ(backend.count("fetch"), fetches);
    }
  }
}

// Baseline and compared rows in different tiles.
TEST_F(OutputHeadTest, ComparesAcrossTiles) {
  std::vector<std::vector<float>> logits = random_rows(kRows);
  logits[7] = logits[1];
  logits[7][5] += 0.5f;
  sampler_.model().rows = logits;
  std::vector<OutputHead::Row> rows(kRows, {.comparison = OutputHead::Row::Comparison::kCompared});
  rows[0].comparison = OutputHead::Row::Comparison::kNone;
  rows[1].comparison = OutputHead::Row::Comparison::kBaseline;
  std::vector<RowComparison> compared;
  ASSERT_EQ(sampler_.head().run({.x = sampler_.input(kRows), .phase = Phase::kDecode, .rows = rows},
                                [&](size_t, const OutputHead::Result& output) {
                                  compared.push_back(output.comparison);
                                  return absl::OkStatus();
                                }),
            absl::OkStatus());
  ASSERT_EQ(compared.size(), static_cast<size_t>(kRows));
  const auto log_softmax = [](const std::vector<float>& row) {
    double sum = 0;
    for (const float logit : row) sum += std::exp(static_cast<double>(logit));
    std::vector<double> result;
    for (const float logit : row) result.push_back(logit - std::log(sum));
    return result;
  };
  const std::vector<double> base = log_softmax(logits[1]);
  for (size_t r = 2; r < kRows; ++r) {
    const std::vector<double> other = log_softmax(logits[r]);
    double kl = 0;
    for (size_t v = 0; v < base.size(); ++v) kl += std::exp(base[v]) * (base[v] - other[v]);
    EXPECT_NEAR(compared[r].kl, kl, 1e-9) << r;
    EXPECT_EQ(compared[r].same_best, r == 7 ? 1 : 0) << r;
  }
}

TEST_F(OutputHeadTest, TheFirstErrorEndsTheRun) {
  sampler_.model().rows = random_rows(kRows);
  const std::vector<OutputHead::Row> rows(kRows);
  int32_t used = 0;
  const absl::Status status = sampler_.head().run({.x = sampler_.input(kRows), .phase = Phase::kDecode, .rows = rows},
                                                  [&](size_t, const OutputHead::Result&) -> absl::Status {
                                                    if (++used == 3) return absl::InternalError("enough");
                                                    return absl::OkStatus();
                                                  });
  EXPECT_EQ(status, absl::InternalError("enough"));
  EXPECT_EQ(used, 3);
}

}  // namespace
}  // namespace pkv::test
