// Loads model and values once a program, runs requests, compares.
#include "tests/golden/model/golden_support.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <utility>

#include "server/policy/registry.h"
#include "tests/support/prompt_run.h"
#include "tests/support/submit.h"

namespace pkv::golden {
namespace {

using nlohmann::json;

constexpr double kNllRelativeTolerance = 1e-4;
constexpr double kNearCut = 1e-4;          // of scores; see make_model_cases.py
constexpr double kRecallTolerance = 1e-4;  // absolute
constexpr double kNearRecall = 1e-5;       // absolute: with min_recall one entry more or less may do
constexpr size_t kTieEntries = 8;          // that a near tie may exchange: a plateau of pooled scores has seven

bool is_near(const json& margin, double limit) { return !margin.is_null() && margin.get<double>() <= limit; }

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

TokenId end_token() {
  static const TokenId kToken =
      static_cast<TokenId>(*(*GgufFile::open(environment("PKV_MODEL")))->u32("tokenizer.ggml.eos_token_id"));
  return kToken;
}

}  // namespace

Loaded load(const BackendOptions& options) { return load(*make_backend(options)); }

Loaded load(std::unique_ptr<Backend> backend) {
  Loaded loaded;
  auto file = GgufFile::open(environment("PKV_MODEL"));
  EXPECT_TRUE(file.ok()) << "PKV_MODEL must name the model (scripts/fetch_model): " << file.status();
  if (!file.ok()) std::exit(1);
  loaded.file = *std::move(file);
  loaded.backend = std::move(backend);
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

std::shared_ptr<const LaneTable> lane_table() {
  static const auto kTable = [] {
    const std::string model = std::filesystem::path(environment("PKV_MODEL")).stem();
    auto table = read_lane_table(environment("PKV_LANE_TABLES") + "/" + model + ".lanes");
    EXPECT_TRUE(table.ok()) << table.status();
    return std::make_shared<const LaneTable>(*std::move(table));
  }();
  return kTable;
}

json values(const std::string& file) {
  std::ifstream stream(environment("PKV_GOLDEN_DIR") + "/model/" + file);
  return json::parse(stream);
}

std::vector<TokenId> prompt_tokens(const std::string& name) {
  static const json kPrompts = values("prompts.json");
  return kPrompts.at(name).get<std::vector<TokenId>>();
}

PolicySpec policy_of(const json& values) {
  const PolicyRow& row = *find_policy(values.at("policy").get<std::string>());
  PolicySpec spec{.kind = row.kind, .params = row.defaults, .kv_dtype = KvDtype::kF32, .lane_table = lane_table()};
  if (values.contains("min_recall")) {
    spec.budget.kind = BudgetKind::kMinRecall;
    spec.budget.min_recall_millionths = to_millionths(values["min_recall"].get<double>());
  } else {
    spec.budget.kind = BudgetKind::kTokens;
    spec.budget.tokens = values.at("budget").get<int64_t>();
  }
  if (values.contains("interval_tokens")) {
    spec.budget.scope = BudgetScope::kTotal;
    spec.budget.interval_tokens = values["interval_tokens"].get<int32_t>();
  }
  if (values.value("allocation", "TABLE") == "GLOBAL") spec.params.funnel_allocation = FunnelAllocation::kGlobal;
  if (values.value("score", "SUM") == "MEAN") spec.params.h2o_score = H2oScore::kMean;
  if (values.value("position_mode", "ORIGINAL") == "CACHE_RELATIVE") {
    spec.params.position_mode = PositionMode::kCacheRelative;
  }
  for (const json& pin : values.value("pins", json::array())) spec.pins.push_back({pin[0], pin[1]});
  return spec;
}

std::unique_ptr<Engine> make_engine(const Loaded& loaded, uint64_t pool_bytes) {
  auto engine = Engine::create(*loaded.model, {.pool_bytes = pool_bytes});
  EXPECT_TRUE(engine.ok()) << engine.status();
  return *std::move(engine);
}

std::shared_ptr<Request> make_request(std::vector<TokenId> prompt, const PolicySpec& policy, int32_t max_tokens) {
  auto request = std::make_shared<Request>();
  request->prompt = std::move(prompt);
  request->policy = policy;
  request->sampling.max_tokens = max_tokens;
  request->end_tokens = {end_token()};
  request->record_positions = true;
  request->logprobs = true;
  request->top_logprobs = 20;
  return request;
}

std::shared_ptr<Request> make_request(const std::string& prompt, const PolicySpec& policy, int32_t max_tokens) {
  return make_request(prompt_tokens(prompt), policy, max_tokens);
}

std::shared_ptr<CollectingSink> submit(Engine& engine, std::shared_ptr<Request> request) {
  auto sink = std::make_shared<CollectingSink>();
  const absl::Status status = test::prepare_and_submit(engine, std::move(request), sink);
  EXPECT_TRUE(status.ok()) << status;
  return sink;
}

std::shared_ptr<CollectingSink> answer(Engine& engine, std::shared_ptr<Request> request) {
  auto sink = submit(engine, std::move(request));
  const absl::Status status = sink->wait();
  EXPECT_TRUE(status.ok()) << status;
  return sink;
}

double log_sum_exp(std::span<const float> logits) {
  const float largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (float logit : logits) sum += std::exp(double(logit) - largest);
  return largest + std::log(sum);
}

void check_full(const Loaded& loaded, const std::string& name) {
  const json expected = values("full.json")[name];
  std::vector<TokenId> prompt = prompt_tokens(expected.value("prompt", name));
  prompt.resize(expected["tokens"].get<size_t>());
  const auto rows = static_cast<int32_t>(prompt.size());
  const int32_t vocab = loaded.model->shape().vocab_size;
  auto run = PromptRun::create(*loaded.model, KvDtype::kF32, rows + 1);
  ASSERT_TRUE(run.ok()) << run.status();
  double nll = 0;
  std::vector<float> last;
  const absl::Status status = (*run)->prefill(prompt);
  ASSERT_TRUE(status.ok()) << status;
  for (int32_t row = rows - expected.value("nll_rows", rows); row < rows; row += PromptRun::kLogitRows) {
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

size_t difference(const Positions& a, const Positions& b) {
  Positions common;
  std::set_intersection(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(common));
  return std::max(a.size(), b.size()) - common.size();
}

bool expect_kept(const std::vector<LayerOutcome>& layers, const json& expected, const json& recall) {
  EXPECT_EQ(layers.size(), expected["kept"].size());
  if (layers.size() != expected["kept"].size()) return false;
  bool all_equal = true;
  for (size_t layer = 0; layer < layers.size(); ++layer) {
    const std::vector<Positions>& kept = layers[layer].kept_positions;
    EXPECT_EQ(kept.size(), expected["kept"][layer].size());
    EXPECT_EQ(layers[layer].recall.size(), recall.is_null() ? 0 : kept.size());
    if (kept.size() != expected["kept"][layer].size()) return false;
    for (size_t head = 0; head < kept.size(); ++head) {
      const auto independent = expected["kept"][layer][head].get<Positions>();
      all_equal = all_equal && kept[head] == independent;
      const bool near_tie =
          is_near(expected["cut_margin"][layer][head], kNearCut) ||
          (expected.contains("recall_margin") && is_near(expected["recall_margin"][layer][head], kNearRecall));
      EXPECT_LE(difference(kept[head], independent), near_tie ? kTieEntries : 0)
          << "layer " << layer << ", KV head " << head;
      // Whichever way a near tie of pooled scores goes, what lies under them may differ.
      if (layers[layer].recall.size() != kept.size() || recall.is_null() || near_tie) continue;
      EXPECT_NEAR(layers[layer].recall[head], recall[layer][head].get<double>(), kRecallTolerance)
          << "layer " << layer << ", KV head " << head;
    }
  }
  return all_equal;
}

void expect_logits(std::span<const float> logits, const json& expected) {
  for (const json& row : expected) {
    EXPECT_NEAR(logits[row[0].get<size_t>()], row[1].get<double>(), kLogitTolerance) << "token " << row[0];
  }
}

void expect_greedy(const std::vector<TokenId>& ids, const json& expected, const json& margins) {
  for (size_t i = 0; i < expected.size(); ++i) {
    ASSERT_LT(i, ids.size());
    if (ids[i] == expected[i].get<TokenId>()) continue;
    EXPECT_LT(margins[i].get<double>(), kNearTie) << "token " << i << ": " << ids[i] << " instead of " << expected[i];
    return;
  }
  EXPECT_EQ(ids.size(), expected.size());
}

}  // namespace pkv::golden
