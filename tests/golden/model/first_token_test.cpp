// Negative control on real weights: the model rests its attention on the first token (StreamingLLM, arXiv 2309.17453,
// section 3.1), so losing it must hurt far more than losing another one. Random weights have no such sink, and tests on
// them would not see a sink that is lost.
#include <gtest/gtest.h>

#include <cmath>

#include "tests/golden/model/golden_support.h"
#include "tests/support/prompt_run.h"

namespace pkv {
namespace {

constexpr size_t kContinuation = 48;  // tokens of the text that are fed after the eviction
// Measured: 0.53 and 0.59 nats without the first token, 194 and 664 times what a middle one costs.
constexpr double kWorse = 40;     // times the divergence
constexpr double kVisible = 0.2;  // nats

// Logits at each token of `text`, fed to the cache of `prompt`. With `evicted` >= 0 that slot of every lane goes
// before.
std::vector<std::vector<float>> run(std::span<const TokenId> prompt, std::span<const TokenId> text, int32_t evicted) {
  auto run =
      *PromptRun::create(*golden::fast().model, KvDtype::kF16, static_cast<int32_t>(prompt.size() + text.size()));
  EXPECT_TRUE(run->prefill(prompt).ok());
  if (evicted >= 0) {
    EXPECT_TRUE(run->remove_slot(evicted).ok());
  }
  std::vector<std::vector<float>> logits;
  for (const TokenId token : text) logits.push_back(*run->decode(token));
  return logits;
}

// Mean KL(p || q) in nats.
double divergence(const std::vector<std::vector<float>>& p, const std::vector<std::vector<float>>& q) {
  double sum = 0;
  for (size_t i = 0; i < p.size(); ++i) {
    const double p_lse = golden::log_sum_exp(p[i]), q_lse = golden::log_sum_exp(q[i]);
    for (size_t v = 0; v < p[i].size(); ++v) {
      const double log_p = p[i][v] - p_lse;
      sum += std::exp(log_p) * (log_p - (q[i][v] - q_lse));
    }
  }
  return sum / double(p.size());
}

class FirstToken : public testing::TestWithParam<const char*> {};

TEST_P(FirstToken, EvictingItHurts) {
  const std::vector<TokenId> tokens = golden::prompt_tokens(GetParam());
  const auto prompt = std::span(tokens).first(tokens.size() - kContinuation);
  const auto text = std::span(tokens).last(kContinuation);
  const auto full = run(prompt, text, -1);
  const double without_first = divergence(full, run(prompt, text, 0));
  const double without_middle = divergence(full, run(prompt, text, static_cast<int32_t>(prompt.size() / 2)));
  RecordProperty("kl_without_first", std::to_string(without_first));
  RecordProperty("kl_without_middle", std::to_string(without_middle));
  EXPECT_GT(without_first, kVisible);
  EXPECT_GT(without_first, kWorse * without_middle);
}

INSTANTIATE_TEST_SUITE_P(Prompts, FirstToken, testing::Values("gpl3_text", "needles_chat"),
                         [](const testing::TestParamInfo<const char*>& prompt) { return std::string(prompt.param); });

}  // namespace
}  // namespace pkv
