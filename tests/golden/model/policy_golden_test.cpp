// What every policy keeps of real prompts and evicts while it generates, against values made independently
// (make_model_cases.py), in exact mode with float32 entries.
#include <gtest/gtest.h>

#include <algorithm>
#include <iterator>
#include <map>

#include "tests/golden/model/golden_support.h"
#include "tests/support/prompt_run.h"

namespace pkv {
namespace {

using golden::Positions;
using nlohmann::json;

constexpr double kSumTolerance = 1e-4;  // relative
// Generation goes on from what was evicted, so one near tie moves what follows it in the deeper layers.
constexpr double kLanesEqual = 0.9;
constexpr size_t kEntriesApart = 4;

class KeptPositions : public testing::TestWithParam<const char*> {};

TEST_P(KeptPositions, RecallAndTheContinuation) {
  const std::string name = std::string("kept_") + GetParam();
  const json expected = golden::values(name + ".json");
  const json recall = golden::values("recall.json").value(name, json());
  auto engine = golden::make_engine(golden::exact());
  const auto sink = golden::answer(
      *engine, golden::make_request(expected["prompt"].get<std::string>(), golden::policy_of(expected), 32));
  const bool all_equal = golden::expect_kept(sink->result().cache.layers, expected, recall);
  if (all_equal && expected.contains("greedy"))
    golden::expect_greedy(sink->ids(), expected["greedy"], expected["margins"]);
}

INSTANTIATE_TEST_SUITE_P(
    Cases, KeptPositions,
    testing::Values("gpl3_text_streaming_llm_64", "gpl3_text_streaming_llm_256", "gpl2_chat_streaming_llm_128",
                    "needles_chat_streaming_llm_128", "lgpl_long_streaming_llm_128",
                    "gpl3_text_streaming_llm_64_relative", "gpl3_text_h2o_64", "gpl3_text_h2o_256", "gpl2_chat_h2o_128",
                    "needles_chat_h2o_128", "lgpl_long_h2o_128", "gpl3_text_h2o_64_mean", "needles_chat_h2o_128_mean",
                    "gpl3_text_snapkv_64", "gpl3_text_snapkv_256", "gpl2_chat_snapkv_128", "needles_chat_snapkv_128",
                    "lgpl_long_snapkv_128", "gpl3_text_snapkv_128_pin", "needles_chat_snapkv_recall",
                    "gpl3_text_pyramidkv_64", "gpl3_text_pyramidkv_256", "gpl2_chat_pyramidkv_128",
                    "needles_chat_pyramidkv_128", "lgpl_long_pyramidkv_128", "gpl3_text_pyramidkv_128_pin",
                    "gpl3_text_tova_64", "needles_chat_tova_128", "gpl3_text_l2norm_64", "needles_chat_l2norm_128",
                    "gpl3_text_keydiff_64", "needles_chat_keydiff_128", "gpl3_text_funnel_64_table",
                    "needles_chat_funnel_128_table", "gpl3_text_funnel_128_table_pin", "gpl3_text_funnel_64_global",
                    "needles_chat_funnel_128_global", "gpl3_text_funnel_128_global_pin", "gpl3_text_ada_snapkv_64",
                    "needles_chat_ada_snapkv_128", "needles_chat_ada_pyramidkv_128", "gpl3_text_ada_pyramidkv_128_pin"),
    [](const testing::TestParamInfo<const char*>& kept) { return std::string(kept.param); });

class TotalScope : public testing::TestWithParam<const char*> {};

TEST_P(TotalScope, TokensAndWhatIsLeftAtTheEnd) {
  const json expected = golden::values(std::string("total_") + GetParam() + ".json");
  std::vector<TokenId> prompt = golden::prompt_tokens(expected["prompt"].get<std::string>());
  prompt.resize(expected["prompt_tokens"].get<size_t>());
  auto request =
      golden::make_request(std::move(prompt), golden::policy_of(expected), expected["max_tokens"].get<int32_t>());
  request->sampling.ignore_eos = true;
  auto engine = golden::make_engine(golden::exact());
  const auto sink = golden::answer(*engine, std::move(request));
  const auto greedy = expected["greedy"].get<std::vector<TokenId>>();
  const std::vector<TokenId> ids = sink->ids();
  ASSERT_EQ(ids.size(), greedy.size());
  const auto same = std::mismatch(greedy.begin(), greedy.end(), ids.begin()).first;
  if (same != greedy.end()) {
    const size_t place = size_t(same - greedy.begin());
    ADD_FAILURE() << "token " << place << " differs, margin " << expected["margins"][place];
  }
  const std::vector<LayerOutcome>& layers = sink->result().cache.layers;
  ASSERT_EQ(layers.size(), expected["final"].size());
  size_t equal = 0, lanes = 0;
  for (size_t layer = 0; layer < layers.size(); ++layer) {
    ASSERT_EQ(layers[layer].final_positions.size(), expected["final"][layer].size());
    for (size_t head = 0; head < layers[layer].final_positions.size(); ++head) {
      const Positions& positions = layers[layer].final_positions[head];
      const auto independent = expected["final"][layer][head].get<Positions>();
      ++lanes;
      equal += positions == independent ? 1 : 0;
      EXPECT_EQ(positions.size(), independent.size());
      EXPECT_LE(golden::difference(positions, independent),
                expected["margin"][layer][head].is_null() ? 0 : kEntriesApart)
          << "layer " << layer << ", KV head " << head;
    }
  }
  EXPECT_GE(double(equal), kLanesEqual * double(lanes));
  RecordProperty("lanes_equal", std::to_string(equal));
}

INSTANTIATE_TEST_SUITE_P(Cases, TotalScope,
                         testing::Values("streaming_llm", "streaming_llm_relative", "h2o", "h2o_mean", "snapkv",
                                         "pyramidkv", "tova", "tova_interval_1", "l2norm", "keydiff", "funnel_table",
                                         "funnel_global"),
                         [](const testing::TestParamInfo<const char*>& total) { return std::string(total.param); });

// What h2o scores by, added up by the backend tile by tile, is the column sums of the whole softmax matrix.
TEST(H2o, SumsAreTheColumnSumsOfTheWholeAttentionMatrix) {
  const json expected = golden::values("h2o_sums.json");
  const Model& model = *golden::exact().model;
  Backend& backend = model.backend();
  const std::vector<TokenId> prompt = golden::prompt_tokens(expected["prompt"].get<std::string>());
  const auto n = static_cast<int32_t>(prompt.size());
  const int32_t heads = model.shape().q_heads;
  std::map<int32_t, Tensor> sums;
  for (const auto& [layer, rows] : expected["sums"].items()) {
    Tensor& tensor = sums[std::stoi(layer)] = *backend.allocate(heads, n, DType::kF32);
    backend.upload(tensor.view(), std::vector<float>(size_t(heads) * n).data());
  }
  auto run = *PromptRun::create(model, KvDtype::kF32, n);
  const auto add = [&](int32_t layer, int32_t, const TensorView& q, const KvView& kv) {
    const auto found = sums.find(layer);
    if (found == sums.end()) return;
    const ObserveArgs args{.q = q,
                           .kv = kv,
                           .unseen = static_cast<int32_t>(q.rows) - 1,
                           .q_heads = heads,
                           .kv_heads = model.shape().kv_heads,
                           .scale = attention_scale(model.shape().head_dim)};
    const Tensor lse = *backend.allocate(q.rows, heads, DType::kF32);
    backend.row_lse(args, lse.view());
    backend.column_mass(args, lse.view(), found->second.view(), TensorView{});
  };
  ASSERT_TRUE(run->prefill(prompt, add).ok());
  for (const auto& [layer, rows] : expected["sums"].items()) {
    std::vector<float> host(size_t(heads) * n);
    backend.fetch({host.data(), sums.at(std::stoi(layer)).view()});
    for (int32_t head = 0; head < heads; ++head) {
      for (size_t i = 0; i < expected["columns"].size(); ++i) {
        const auto column = expected["columns"][i].get<size_t>();
        const double independent = rows[size_t(head)][i].get<double>();
        EXPECT_NEAR(host[size_t(head) * n + column], independent, kSumTolerance * independent)
            << "layer " << layer << ", query head " << head << ", column " << column;
      }
    }
  }
}

}  // namespace
}  // namespace pkv
