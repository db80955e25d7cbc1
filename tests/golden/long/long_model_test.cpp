// Qwen2.5-Coder-0.5B-Instruct and its context of 32,768 positions: values made independently (make_long_cases.py), and
// what is promised for long prompts.
#include <gtest/gtest.h>

#include "tests/golden/model/golden_support.h"
#include "tests/support/report_check.h"

namespace pkv {
namespace {

using nlohmann::json;

// What a file of values says of a prompt: the first `tokens` of `prompt`.
std::vector<TokenId> prompt_of(const json& values) {
  std::vector<TokenId> tokens = golden::prompt_tokens(values["prompt"].get<std::string>());
  tokens.resize(values["tokens"].get<size_t>());
  return tokens;
}

std::vector<TokenId> first_tokens(size_t count) {
  std::vector<TokenId> tokens = golden::prompt_tokens("text");
  tokens.resize(count);
  return tokens;
}

TEST(LongModel, IsTheOneTheValuesAreOf) {
  const ModelShape& shape = golden::exact().model->shape();
  EXPECT_EQ(shape.architecture, "qwen2");
  EXPECT_EQ(shape.layers, 24);
  EXPECT_EQ(shape.q_heads, 14);
  EXPECT_EQ(shape.kv_heads, 2);
  EXPECT_EQ(shape.head_dim, 64);
  EXPECT_EQ(shape.max_positions, 32768);
}

class FullCache : public testing::TestWithParam<const char*> {};

TEST_P(FullCache, LogitsAndLogProbabilitiesInExactMode) { golden::check_full(golden::exact(), GetParam()); }

INSTANTIATE_TEST_SUITE_P(Prompts, FullCache, testing::Values("chat", "text_2k"),
                         [](const auto& prompt) { return std::string(prompt.param); });

class Greedy : public testing::TestWithParam<const char*> {};

TEST_P(Greedy, TokensInExactMode) {
  const json expected = golden::values("full.json")[GetParam()];
  auto engine = golden::make_engine(golden::exact());
  auto request = golden::make_request(prompt_of(expected), {.kv_dtype = KvDtype::kF32}, 16);
  request->sampling.ignore_eos = true;
  golden::expect_greedy(golden::answer(*engine, std::move(request))->ids(), expected["greedy"], expected["margins"]);
}

INSTANTIATE_TEST_SUITE_P(Prompts, Greedy, testing::Values("chat", "text_2k"),
                         [](const auto& prompt) { return std::string(prompt.param); });

// Read once in float32, for that takes long: what is kept, its recall, and the best logits behind the prompt.
class LongPrompt : public testing::TestWithParam<std::pair<const char*, const char*>> {};

TEST_P(LongPrompt, KeptPositionsRecallAndLogitsInExactMode) {
  const auto& [prompt, policy] = GetParam();
  const std::string name = std::string("kept_") + prompt + "_" + policy;
  const json expected = golden::values(name + ".json");
  auto engine = golden::make_engine(golden::exact());
  const auto sink = golden::answer(*engine, golden::make_request(prompt_of(expected), golden::policy_of(expected), 1));
  golden::expect_kept(sink->result().cache.layers, expected, golden::values("recall.json")[name]);
  const json best = golden::values("full.json")[prompt]["last_logits"];
  ASSERT_EQ(sink->tokens().size(), 1u);
  const TokenLogprob& token = sink->tokens()[0];
  EXPECT_EQ(token.id, best[0][0].get<TokenId>());
  const double to_logits = best[0][1].get<double>() - token.logprob;  // a log-probability is its logit less a constant
  std::vector<float> logits(golden::exact().model->shape().vocab_size);
  for (const auto& [id, logprob] : token.top) logits[id] = static_cast<float>(logprob + to_logits);
  golden::expect_logits(logits, best);
}

INSTANTIATE_TEST_SUITE_P(Prompts, LongPrompt,
                         testing::Values(std::pair("text_16k", "funnel"), std::pair("text_2k", "funnel_global"),
                                         std::pair("text_30k", "pyramidkv")),
                         [](const auto& prompt) { return std::string(prompt.param.first); });

struct LongContract {
  std::string name;
  size_t prompt_tokens;
  PolicySpec spec;
};
void PrintTo(const LongContract& contract, std::ostream* out) { *out << contract.name; }

class ContractOfALongPrompt : public testing::TestWithParam<LongContract> {};

// The report keeps what was promised, byte for byte, and nothing stays behind.
TEST_P(ContractOfALongPrompt, IsKept) {
  constexpr int32_t kNewTokens = 8;
  const golden::Loaded& loaded = golden::fast();
  auto engine = golden::make_engine(loaded);
  PolicySpec spec = GetParam().spec;
  spec.lane_table = golden::lane_table();
  auto request = golden::make_request(first_tokens(GetParam().prompt_tokens), spec, kNewTokens);
  request->sampling.ignore_eos = true;
  auto prepared = engine->prepare(request);
  ASSERT_TRUE(prepared.ok()) << prepared.status();
  const Contract promised = (*std::move(prepared)).take_contract();
  const auto sink = golden::answer(*engine, request);
  EXPECT_EQ(sink->ids().size(), size_t{kNewTokens});
  const std::vector<std::string> violations =
      test::report_violations({.shape = loaded.model->shape(),
                               .page_bytes = engine->options().page_bytes,
                               .spec = request->policy,
                               .prompt_tokens = static_cast<int32_t>(request->prompt.size()),
                               .promised = promised},
                              sink->result().cache);
  EXPECT_EQ(violations, std::vector<std::string>());
  EXPECT_TRUE(sink->result().cache.compressed);
  EXPECT_EQ(engine->stats()->live_bytes, 0u);
}

PolicySpec with_tokens(PolicyKind kind, int64_t tokens, BudgetScope scope) {
  return {.kind = kind, .budget = {.kind = BudgetKind::kTokens, .tokens = tokens, .scope = scope}};
}

// In k8v4, which it is meant for: budgets in bytes hold at every instant, the layer that is read in f16 included.
PolicySpec funnel(FunnelAllocation allocation, const Budget& budget) {
  return {.kind = PolicyKind::kFunnel,
          .params = {.window_tokens = 32, .funnel_allocation = allocation},
          .budget = budget,
          .kv_dtype = KvDtype::kK8V4};
}
constexpr Budget kTokens{.kind = BudgetKind::kTokens, .tokens = 2000};
constexpr Budget kBytes16k{.kind = BudgetKind::kBytes, .bytes = 24 << 20, .scope = BudgetScope::kTotal};
constexpr Budget kBytes30k{.kind = BudgetKind::kBytes, .bytes = 40 << 20, .scope = BudgetScope::kTotal};

INSTANTIATE_TEST_SUITE_P(
    Policies, ContractOfALongPrompt,
    testing::Values(LongContract{"PyramidKv16k", 16000, with_tokens(PolicyKind::kPyramidKv, 512, BudgetScope::kPrompt)},
                    LongContract{"H2oTotal16k", 16000, with_tokens(PolicyKind::kH2o, 1024, BudgetScope::kTotal)},
                    LongContract{"SnapKv30k", 30000, with_tokens(PolicyKind::kSnapKv, 2048, BudgetScope::kTotal)},
                    LongContract{"FunnelTable16k", 16000, funnel(FunnelAllocation::kTable, kTokens)},
                    LongContract{"FunnelTableBytes16k", 16000, funnel(FunnelAllocation::kTable, kBytes16k)},
                    LongContract{"FunnelGlobalBytes16k", 16000, funnel(FunnelAllocation::kGlobal, kBytes16k)},
                    LongContract{"FunnelTableBytes30k", 30000, funnel(FunnelAllocation::kTable, kBytes30k)},
                    LongContract{"FunnelGlobalBytes30k", 30000, funnel(FunnelAllocation::kGlobal, kBytes30k)}),
    [](const auto& contract) { return contract.param.name; });

TEST(LongModel, RefusesMorePositionsThanItHas) {
  auto engine = golden::make_engine(golden::fast());
  const auto submit = [&](size_t prompt_tokens, int32_t new_tokens) {
    return engine->prepare(golden::make_request(std::vector<TokenId>(prompt_tokens, 100), {}, new_tokens)).status();
  };
  EXPECT_TRUE(submit(32768 - 8, 8).ok());
  EXPECT_EQ(submit(32768 - 8, 9).code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace pkv
