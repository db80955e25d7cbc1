// The default model against values made independently (make_model_cases.py): logits, log-probabilities, greedy tokens and kept
// positions in exact mode, and the promises that hold in every mode.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>

#include "server/engine/engine.h"
#include "tests/support/collecting_sink.h"
#include "tests/support/prompt_run.h"

namespace pkv {
namespace {

using nlohmann::json;

constexpr TokenId kEndToken = 2;
constexpr double kLogitTolerance = 1e-3;      // float32 with another order of summation
constexpr double kNearTie = 5e-3;             // best two logits this close: either may win
constexpr double kNearCut = 1e-4;             // relative; see make_model_cases.py
constexpr double kNllRelativeTolerance = 1e-4;

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

json golden(const std::string& file) {
  std::ifstream stream(environment("PKV_GOLDEN_DIR") + "/model/" + file);
  return json::parse(stream);
}

// One backend with the model on it. PKV_ISA caps the instruction-set path, to try the lower ones of this machine.
struct Loaded {
  std::unique_ptr<GgufFile> file;
  std::unique_ptr<Backend> backend;
  std::unique_ptr<Model> model;
};

Loaded load(const BackendOptions& options) {
  Loaded loaded;
  auto file = GgufFile::open(environment("PKV_MODEL"));
  EXPECT_TRUE(file.ok()) << "PKV_MODEL must name the default model (scripts/fetch_model): " << file.status();
  if (!file.ok()) std::exit(1);
  loaded.file = *std::move(file);
  loaded.backend = *make_backend(options);
  loaded.model = *load_model(*loaded.file, *loaded.backend);
  return loaded;
}

const Loaded& exact() {
  static const Loaded kLoaded = load({.device = "cpu", .exact = true, .isa = environment("PKV_ISA")});
  return kLoaded;
}
const Loaded& fast() {
  static const Loaded kLoaded = load({.device = "cpu", .isa = environment("PKV_ISA")});
  return kLoaded;
}

double log_sum_exp(std::span<const float> logits) {
  const float largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (float logit : logits) sum += std::exp(double(logit) - largest);
  return largest + std::log(sum);
}

void expect_logits(std::span<const float> logits, const json& expected) {
  for (const json& row : expected) {
    EXPECT_NEAR(logits[row[0].get<size_t>()], row[1].get<double>(), kLogitTolerance) << "token " << row[0];
  }
}

// Equal up to the first place where the independent model itself was undecided.
void expect_greedy(const std::vector<TokenId>& ids, const json& expected, const json& margins) {
  for (size_t i = 0; i < expected.size(); ++i) {
    ASSERT_LT(i, ids.size());
    if (ids[i] == expected[i].get<TokenId>()) continue;
    EXPECT_LT(margins[i].get<double>(), kNearTie) << "token " << i << ": " << ids[i] << " instead of " << expected[i];
    return;
  }
  EXPECT_EQ(ids.size(), expected.size());
}

void check_full(const Loaded& loaded, const std::string& name) {
  const auto prompt = golden("prompts.json")[name].get<std::vector<int32_t>>();
  const json expected = golden("full.json")[name];
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
        nll += log_sum_exp(logits) - logits[prompt[row + i + 1]];
      } else {
        last.assign(logits.begin(), logits.end());
      }
    }
  }
  const double nll_expected = expected["nll_sum"].get<double>();
  EXPECT_NEAR(nll, nll_expected, kNllRelativeTolerance * nll_expected);
  expect_logits(last, expected["last_logits"]);
  auto second = (*run)->decode(expected["greedy"][0].get<int32_t>());
  ASSERT_TRUE(second.ok()) << second.status();
  expect_logits(*second, expected["second_logits"]);
}

std::unique_ptr<Engine> make_engine(const Loaded& loaded) {
  auto engine = Engine::create(*loaded.model, {.pool_bytes = uint64_t{1} << 30});
  EXPECT_TRUE(engine.ok()) << engine.status();
  return *std::move(engine);
}

std::shared_ptr<Request> make_request(const std::string& prompt, const PolicySpec& policy, int32_t max_tokens) {
  auto request = std::make_shared<Request>();
  request->prompt = golden("prompts.json")[prompt].get<std::vector<TokenId>>();
  request->policy = policy;
  request->sampling.max_tokens = max_tokens;
  request->end_tokens = {kEndToken};
  request->record_positions = true;
  request->logprobs = true;
  request->top_logprobs = 20;
  return request;
}

std::shared_ptr<CollectingSink> submit(Engine& engine, std::shared_ptr<Request> request) {
  auto sink = std::make_shared<CollectingSink>();
  const absl::Status status = engine.submit(std::move(request), sink);
  EXPECT_TRUE(status.ok()) << status;
  return sink;
}

std::shared_ptr<CollectingSink> answer(Engine& engine, std::shared_ptr<Request> request) {
  auto sink = submit(engine, std::move(request));
  const absl::Status status = sink->wait();
  EXPECT_TRUE(status.ok()) << status;
  return sink;
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

TEST_P(FullCache, LogitsAndLogProbabilitiesInExactMode) { check_full(exact(), GetParam()); }

TEST_P(FullCache, GreedyTokensInExactMode) {
  const json expected = golden("full.json")[GetParam()];
  auto engine = make_engine(exact());
  const auto sink = answer(*engine, make_request(GetParam(), {.kv_dtype = KvDtype::kF32}, 48));
  expect_greedy(sink->ids(), expected["greedy"], expected["margins"]);
}

INSTANTIATE_TEST_SUITE_P(Prompts, FullCache,
                         testing::Values("short_chat", "needles_chat", "gpl3_text", "gpl2_chat", "lgpl_long"));

TEST(ReferenceBackend, ShortChat) { check_full(load({.device = "reference"}), "short_chat"); }

struct KeptCase {
  const char* prompt;
  PolicyKind policy;
  int32_t budget;
  std::string file() const {
    return std::string("kept_") + prompt + "_" + std::string(policy_row(policy).name) + "_" + std::to_string(budget) + ".json";
  }
};

class KeptPositions : public testing::TestWithParam<KeptCase> {};

TEST_P(KeptPositions, AndTheContinuation) {
  const KeptCase& param = GetParam();
  const json expected = golden(param.file());
  auto engine = make_engine(exact());
  const PolicySpec policy{.kind = param.policy, .budget = {BudgetKind::kTokens, param.budget, 0}, .kv_dtype = KvDtype::kF32};
  const auto sink = answer(*engine, make_request(param.prompt, policy, 32));
  const auto& layers = sink->result().cache.layers;
  ASSERT_EQ(layers.size(), expected["kept"].size());
  bool all_equal = true;
  for (size_t layer = 0; layer < layers.size(); ++layer) {
    for (size_t head = 0; head < layers[layer].kept_positions.size(); ++head) {
      const bool equal = layers[layer].kept_positions[head] == expected["kept"][layer][head].get<std::vector<int32_t>>();
      all_equal = all_equal && equal;
      const json& margin = expected["cut_margin"][layer][head];
      const bool near_tie = !margin.is_null() && margin.get<double>() <= kNearCut;
      EXPECT_TRUE(equal || near_tie) << "layer " << layer << ", KV head " << head;
    }
  }
  if (all_equal) expect_greedy(sink->ids(), expected["greedy"], expected["margins"]);
}

INSTANTIATE_TEST_SUITE_P(
    Cases, KeptPositions,
    testing::Values(KeptCase{"gpl3_text", PolicyKind::kPyramidKv, 64}, KeptCase{"gpl3_text", PolicyKind::kPyramidKv, 256},
                    KeptCase{"gpl3_text", PolicyKind::kSnapKv, 64}, KeptCase{"gpl3_text", PolicyKind::kSnapKv, 256},
                    KeptCase{"gpl2_chat", PolicyKind::kPyramidKv, 128}, KeptCase{"gpl2_chat", PolicyKind::kSnapKv, 128},
                    KeptCase{"needles_chat", PolicyKind::kPyramidKv, 128}, KeptCase{"needles_chat", PolicyKind::kSnapKv, 128},
                    KeptCase{"lgpl_long", PolicyKind::kPyramidKv, 128}, KeptCase{"lgpl_long", PolicyKind::kSnapKv, 128}),
    [](const testing::TestParamInfo<KeptCase>& kept) {
      return std::string(kept.param.prompt) + "_" + std::string(policy_row(kept.param.policy).name) + "_" +
             std::to_string(kept.param.budget);
    });

TEST(Promises, BudgetOverThePromptIsBitIdenticalToFull) {
  for (const Loaded* loaded : {&exact(), &fast()}) {
    auto engine = make_engine(*loaded);
    const auto full = answer(*engine, make_request("needles_chat", {}, 24));
    for (const PolicyKind kind : {PolicyKind::kSnapKv, PolicyKind::kPyramidKv}) {
      const PolicySpec policy{.kind = kind, .budget = {BudgetKind::kTokens, 1046, 0}};
      const auto kept = answer(*engine, make_request("needles_chat", policy, 24));
      expect_identical(*full, *kept);
      EXPECT_FALSE(kept->result().cache.compressed);
      EXPECT_NE(kept->result().cache.not_compressed_reason, "");
    }
  }
}

TEST(Promises, AMixedBatchAnswersAsEachAlone) {
  const PolicySpec full;
  const PolicySpec snapkv{.kind = PolicyKind::kSnapKv, .budget = {BudgetKind::kTokens, 128, 0}};
  const PolicySpec pyramidkv{.kind = PolicyKind::kPyramidKv, .budget = {BudgetKind::kTokens, 64, 0}};
  const std::vector<std::pair<const char*, PolicySpec>> cases{
      {"gpl3_text", pyramidkv}, {"needles_chat", full}, {"gpl2_chat", snapkv}, {"short_chat", full}};
  auto engine = make_engine(fast());
  std::vector<std::shared_ptr<CollectingSink>> alone, together;
  for (const auto& [prompt, policy] : cases) alone.push_back(answer(*engine, make_request(prompt, policy, 24)));
  for (const auto& [prompt, policy] : cases) together.push_back(submit(*engine, make_request(prompt, policy, 24)));
  for (size_t i = 0; i < cases.size(); ++i) {
    ASSERT_TRUE(together[i]->wait().ok());
    expect_identical(*alone[i], *together[i]);
  }
  EXPECT_EQ(engine->stats().live_bytes, 0u);
}

// The bound that the product is sold with: what is kept, plus one full layer, plus a page a lane, plus 2 %.
TEST(Promises, PeakBytesOfALongPrompt) {
  auto engine = make_engine(fast());
  const PolicySpec policy{.kind = PolicyKind::kPyramidKv, .budget = {BudgetKind::kTokens, 128, 0}};
  const auto sink = answer(*engine, make_request("lgpl_long", policy, 8));
  const ModelShape& shape = fast().model->shape();
  const uint64_t entry = 2 * 2 * shape.head_dim, lanes = uint64_t(shape.layers) * shape.kv_heads;
  const uint64_t prompt = sink->result().prompt_tokens;
  const uint64_t entries = (128 * lanes + prompt * shape.kv_heads) * entry;
  EXPECT_LE(sink->result().cache.bytes.peak, (entries + lanes * 4096) * 1.02);
  EXPECT_GT(sink->result().cache.bytes.peak, prompt * shape.kv_heads * entry);
  EXPECT_GT(sink->result().cache.saved_bytes, int64_t(0.9 * sink->result().cache.full_bytes));
}

}  // namespace
}  // namespace pkv
