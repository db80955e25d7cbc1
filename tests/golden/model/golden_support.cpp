// Loads model and values once a program, runs requests, compares.
#include "tests/golden/model/golden_support.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <utility>

#include "server/policy/registry.h"
#include "tests/support/submit.h"

namespace pkv::golden {
namespace {

using nlohmann::json;

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

}  // namespace

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

std::shared_ptr<const LaneTable> lane_table() {
  static const auto kTable = [] {
    auto table =
        read_lane_table(environment("PKV_GOLDEN_DIR") + "/../../config/lane_tables/SmolLM2-135M-Instruct.Q4_1.lanes");
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
  if (values.value("score", "SUM") == "MEAN") spec.params.h2o_score = H2oScore::kMean;
  if (values.value("position_mode", "ORIGINAL") == "CACHE_RELATIVE") {
    spec.params.position_mode = PositionMode::kCacheRelative;
  }
  for (const json& pin : values.value("pins", json::array())) spec.pins.push_back({pin[0], pin[1]});
  return spec;
}

std::unique_ptr<Engine> make_engine(const Loaded& loaded) {
  auto engine = Engine::create(*loaded.model, {.pool_bytes = uint64_t{1} << 30});
  EXPECT_TRUE(engine.ok()) << engine.status();
  return *std::move(engine);
}

std::shared_ptr<Request> make_request(std::vector<TokenId> prompt, const PolicySpec& policy, int32_t max_tokens) {
  auto request = std::make_shared<Request>();
  request->prompt = std::move(prompt);
  request->policy = policy;
  request->sampling.max_tokens = max_tokens;
  request->end_tokens = {kEndToken};
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
