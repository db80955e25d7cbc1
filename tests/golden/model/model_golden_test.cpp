// The default model against values made independently (make_model_cases.py): logits, log-probabilities and greedy
// tokens with the full cache in exact mode; and the promises that hold in every mode.
#include <gtest/gtest.h>

#include "server/model/fingerprint.h"
#include "server/policy/registry.h"
#include "tests/golden/model/golden_support.h"
#include "tests/support/prompt_run.h"

namespace pkv {
namespace {

using nlohmann::json;

constexpr double kNllRelativeTolerance = 1e-4;

void check_full(const golden::Loaded& loaded, const std::string& name) {
  const std::vector<TokenId> prompt = golden::prompt_tokens(name);
  const json expected = golden::values("full.json")[name];
  auto run = PromptRun::create(*loaded.model, KvDtype::kF32, static_cast<int32_t>(prompt.size()) + 1);
  ASSERT_TRUE(run.ok()) << run.status();
  double nll = 0;
  std::vector<float> last;
  const absl::Status status = (*run)->prefill(prompt);
  ASSERT_TRUE(status.ok()) << status;
  const int32_t rows = static_cast<int32_t>(prompt.size()), vocab = loaded.model->shape().vocab_size;
  for (int32_t row = 0; row < rows; row += PromptRun::kLogitRows) {
    const int32_t count = std::min(PromptRun::kLogitRows, rows - row);
    const std::vector<float> tile = (*run)->prompt_logits(row, count);
    for (int32_t i = 0; i < count; ++i) {
      const std::span<const float> logits = std::span(tile).subspan(size_t(i) * vocab, vocab);
      if (row + i + 1 < rows) {
        nll += golden::log_sum_exp(logits) - logits[prompt[row + i + 1]];
      } else {
        last.assign(logits.begin(), logits.end());
      }
    }
  }
  const double nll_expected = expected["nll_sum"].get<double>();
  EXPECT_NEAR(nll, nll_expected, kNllRelativeTolerance * nll_expected);
  golden::expect_logits(last, expected["last_logits"]);
  auto second = (*run)->decode(expected["greedy"][0].get<int32_t>());
  ASSERT_TRUE(second.ok()) << second.status();
  golden::expect_logits(*second, expected["second_logits"]);
}

// The same bits, not nearly the same.
void expect_identical(const CollectingSink& a, const CollectingSink& b) {
  ASSERT_EQ(a.ids(), b.ids());
  for (size_t i = 0; i < a.tokens().size(); ++i) {
    EXPECT_EQ(a.tokens()[i].logprob, b.tokens()[i].logprob) << "token " << i;
    EXPECT_EQ(a.tokens()[i].top, b.tokens()[i].top) << "token " << i;
  }
}

class FullCache : public testing::TestWithParam<const char*> {};

TEST_P(FullCache, LogitsAndLogProbabilitiesInExactMode) { check_full(golden::exact(), GetParam()); }

TEST_P(FullCache, GreedyTokensInExactMode) {
  const json expected = golden::values("full.json")[GetParam()];
  auto engine = golden::make_engine(golden::exact());
  const auto sink = golden::answer(*engine, golden::make_request(GetParam(), {.kv_dtype = KvDtype::kF32}, 48));
  golden::expect_greedy(sink->ids(), expected["greedy"], expected["margins"]);
}

INSTANTIATE_TEST_SUITE_P(Prompts, FullCache,
                         testing::Values("short_chat", "needles_chat", "gpl3_text", "gpl2_chat", "lgpl_long"));

TEST(ReferenceBackend, ShortChat) { check_full(golden::load({.device = "reference"}), "short_chat"); }

PolicySpec with_budget(PolicyKind kind, int64_t tokens, BudgetScope scope = BudgetScope::kPrompt) {
  return {.kind = kind,
          .params = policy_row(kind).defaults,
          .budget = {.kind = BudgetKind::kTokens, .tokens = tokens, .scope = scope},
          .lane_table = golden::lane_table()};
}

TEST(LaneTables, ThatOfTheDefaultModelIsItsOwn) {
  const auto table = golden::lane_table();
  const golden::Loaded& loaded = golden::fast();
  EXPECT_EQ(table->model, model_fingerprint(*loaded.file));
  EXPECT_EQ(table->layers, loaded.model->shape().layers);
  EXPECT_EQ(table->kv_heads, loaded.model->shape().kv_heads);
  EXPECT_EQ(table->anchors.size(), 6u);
}

class EveryPolicy : public testing::TestWithParam<PolicyKind> {};

TEST_P(EveryPolicy, BudgetOverThePromptIsBitIdenticalToFull) {
  for (const golden::Loaded* loaded : {&golden::exact(), &golden::fast()}) {
    auto engine = golden::make_engine(*loaded);
    const auto full = golden::answer(*engine, golden::make_request("needles_chat", {}, 24));
    for (const PolicySpec& policy :
         {with_budget(GetParam(), 1046), with_budget(GetParam(), 1046 + 24, BudgetScope::kTotal)}) {
      const auto kept = golden::answer(*engine, golden::make_request("needles_chat", policy, 24));
      expect_identical(*full, *kept);
      EXPECT_FALSE(kept->result().cache.compressed);
      EXPECT_NE(kept->result().cache.not_compressed_reason, "");
    }
  }
}

// The bound that the product is sold with: what is kept, plus one full layer, plus a page a lane, plus 2 %.
TEST_P(EveryPolicy, PeakBytesOfALongPrompt) {
  auto engine = golden::make_engine(golden::fast());
  const auto sink = golden::answer(*engine, golden::make_request("lgpl_long", with_budget(GetParam(), 128), 8));
  const ModelShape& shape = golden::fast().model->shape();
  const uint64_t entry = 2 * 2 * shape.head_dim, lanes = uint64_t(shape.layers) * shape.kv_heads;
  const uint64_t prompt = sink->result().prompt_tokens;
  const uint64_t entries = (128 * lanes + prompt * shape.kv_heads) * entry;
  EXPECT_LE(sink->result().cache.bytes.peak, (entries + lanes * 4096) * 1.02);
  EXPECT_GT(sink->result().cache.bytes.peak, prompt * shape.kv_heads * entry);
  EXPECT_GT(sink->result().cache.saved_bytes, int64_t(0.9 * sink->result().cache.full_bytes));
}

INSTANTIATE_TEST_SUITE_P(Policies, EveryPolicy,
                         testing::Values(PolicyKind::kStreamingLlm, PolicyKind::kH2o, PolicyKind::kSnapKv,
                                         PolicyKind::kPyramidKv, PolicyKind::kL2Norm, PolicyKind::kTova,
                                         PolicyKind::kKeyDiff, PolicyKind::kRandom, PolicyKind::kAdaSnapKv,
                                         PolicyKind::kAdaPyramidKv, PolicyKind::kFunnel),
                         [](const testing::TestParamInfo<PolicyKind>& kind) {
                           return std::string(policy_row(kind.param).name);
                         });

TEST(Promises, AMixedBatchAnswersAsEachAlone) {
  const PolicySpec full;
  const PolicySpec snapkv = with_budget(PolicyKind::kSnapKv, 128);
  const PolicySpec pyramidkv = with_budget(PolicyKind::kPyramidKv, 64);
  const PolicySpec h2o = with_budget(PolicyKind::kH2o, 64, BudgetScope::kTotal);
  PolicySpec streaming = with_budget(PolicyKind::kStreamingLlm, 48, BudgetScope::kTotal);
  streaming.params.position_mode = PositionMode::kCacheRelative;
  const std::vector<std::pair<const char*, PolicySpec>> cases{{"gpl3_text", pyramidkv}, {"needles_chat", full},
                                                              {"gpl2_chat", snapkv},    {"short_chat", full},
                                                              {"needles_chat", h2o},    {"gpl3_text", streaming}};
  auto engine = golden::make_engine(golden::fast());
  std::vector<std::shared_ptr<CollectingSink>> alone, together;
  for (const auto& [prompt, policy] : cases)
    alone.push_back(golden::answer(*engine, golden::make_request(prompt, policy, 24)));
  for (const auto& [prompt, policy] : cases)
    together.push_back(golden::submit(*engine, golden::make_request(prompt, policy, 24)));
  for (size_t i = 0; i < cases.size(); ++i) {
    ASSERT_TRUE(together[i]->wait().ok());
    expect_identical(*alone[i], *together[i]);
  }
  EXPECT_EQ(engine->stats()->live_bytes, 0u);
}

}  // namespace
}  // namespace pkv
