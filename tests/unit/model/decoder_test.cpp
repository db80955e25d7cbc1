// The architectures on tiny random models: against a plain implementation, against transformers, and the ways a server
// runs them (layer-major chunks, only the last rows carried on, decode steps of several sequences) against each other.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

#include "kernels/backend.h"
#include "kernels/check.h"
#include "server/model/model.h"
#include "tests/support/gguf_writer.h"
#include "tests/support/tested_backend.h"
#include "tests/unit/model/fake_cache.h"
#include "tests/unit/model/plain_decoder.h"
#include "tests/unit/model/tiny_cases.h"

namespace pkv {
namespace {

using test::FakeCache;
using test::GgufWriter;
using test::Matrix;
using test::plain_decoder_logits;
using test::TinyModelOptions;

std::vector<int32_t> random_tokens(int32_t count, int32_t vocab, uint32_t seed) {
  std::mt19937 rng(seed);
  std::vector<int32_t> tokens(static_cast<size_t>(count));
  for (int32_t& token : tokens) token = static_cast<int32_t>(rng() % static_cast<uint32_t>(vocab));
  return tokens;
}

// A loaded tiny model with everything it refers to.
struct Loaded {
  std::unique_ptr<Backend> backend;
  std::unique_ptr<GgufFile> file;
  std::unique_ptr<Model> model;
  StepScratch scratch;

  explicit Loaded(const GgufWriter& writer, int32_t max_rows = 64) {
    backend = test::make_tested_backend();
    file = *GgufFile::open(writer.write().path());
    absl::StatusOr<std::unique_ptr<Model>> loaded = load_model(*file, *backend);
    PKV_CHECK(loaded.ok(), loaded.status().ToString().c_str());
    model = *std::move(loaded);
    scratch = *model->make_scratch(max_rows);
  }

  // The logits of the first `rows` rows of x.
  Matrix logits(const TensorView& x, Phase phase) {
    const Tensor result = *backend->allocate(x.rows, model->shape().vocab_size, DType::kF32);
    model->logits(x, phase, scratch.normed.rows(x.rows), result.view());
    return download(result.view());
  }
  Matrix download(const TensorView& view) {
    std::vector<float> values(static_cast<size_t>(view.rows * view.cols));
    backend->fetch({values.data(), view});
    Matrix rows;
    for (int64_t r = 0; r < view.rows; ++r) {
      rows.emplace_back(values.begin() + r * view.cols, values.begin() + (r + 1) * view.cols);
    }
    return rows;
  }
};

// Prefills `tokens` as the first ones of a sequence, layer by layer, each in chunks of the given sizes. In the last
// layer only the last `outputs` rows are carried on. The residual stream [tokens, D].
Tensor prefill(Loaded& m, FakeCache& cache, int32_t sequence, const std::vector<int32_t>& tokens,
               const std::vector<int32_t>& chunks, int32_t outputs) {
  const auto count = static_cast<int32_t>(tokens.size());
  Tensor x = *m.backend->allocate(count, m.model->shape().width, DType::kF32);
  m.model->embed(test::BackendArray<int32_t>(*m.backend, tokens).data(), x.view());
  for (int32_t layer = 0; layer < m.model->shape().layers; ++layer) {
    int32_t begin = 0;
    for (int32_t rows : chunks) {
      const FakeCache::Rows part = {sequence, begin, {tokens.begin() + begin, tokens.begin() + begin + rows}};
      const StepPlan& plan = cache.plan(Phase::kPrefill, {&part, 1}, layer, 1);
      const bool last_layer = layer + 1 == m.model->shape().layers;
      const int32_t carried = last_layer ? std::clamp(begin + rows - (count - outputs), 0, rows) : rows;
      m.model->run_layer(plan, layer, x.view().slice_rows(begin, rows), m.scratch, {.outputs = carried});
      begin += rows;
    }
    EXPECT_EQ(begin, count);
  }
  return x;
}

// One decode step of several sequences; the logits of each.
Matrix decode(Loaded& m, FakeCache& cache, const std::vector<FakeCache::Rows>& rows) {
  const StepPlan& plan = cache.plan(Phase::kDecode, rows, 0, m.model->shape().layers);
  const Tensor x = *m.backend->allocate(plan.rows, m.model->shape().width, DType::kF32);
  m.model->embed(plan.token_ids, x.view());
  for (int32_t layer = 0; layer < m.model->shape().layers; ++layer) {
    m.model->run_layer(plan, layer, x.view(), m.scratch, {.outputs = plan.rows});
  }
  return m.logits(x.view(), Phase::kDecode);
}

double largest_difference(const Matrix& a, const Matrix& b) {
  double largest = a.size() == b.size() ? 0 : INFINITY;
  for (size_t r = 0; r < std::min(a.size(), b.size()); ++r) {
    for (size_t i = 0; i < a[r].size(); ++i) largest = std::max(largest, std::abs(a[r][i] - b[r][i]));
  }
  return largest;
}

using MakeModel = GgufWriter (*)(const TinyModelOptions& options);

struct Variant {
  std::string name;
  MakeModel make;
  TinyModelOptions options;
  std::function<void(GgufWriter&)> change = [](GgufWriter&) {};
};
void PrintTo(const Variant& variant, std::ostream* out) { *out << variant.name; }

TEST(DecoderTest, GivesTheLogSumExpsOfRowsThatAreCarriedOn) {
  Loaded m(test::tiny_llama());
  const ModelShape& shape = m.model->shape();
  constexpr int32_t kTokens = 23, kOutputs = 5;
  const std::vector<int32_t> tokens = random_tokens(kTokens, shape.vocab_size, 7);
  FakeCache cache(*m.backend, shape, 1, kTokens);
  const FakeCache::Rows all = {0, 0, tokens};
  const StepPlan& plan = cache.plan(Phase::kPrefill, {&all, 1}, 0, 1);
  const Tensor x = *m.backend->allocate(kTokens, shape.width, DType::kF32);
  m.model->embed(plan.token_ids, x.view());
  m.model->run_layer(plan, 0, x.view(), m.scratch, {.outputs = kOutputs, .lse = true});
  const Tensor expected = *m.backend->allocate(kOutputs, shape.q_heads, DType::kF32);
  m.backend->row_lse({.q = m.scratch.q.view().slice_rows(kTokens - kOutputs, kOutputs),
                      .kv = plan.view(0),
                      .unseen = kOutputs - 1,
                      .q_heads = shape.q_heads,
                      .kv_heads = shape.kv_heads,
                      .scale = 1.0f / std::sqrt(static_cast<float>(shape.head_dim))},
                     expected.view());
  EXPECT_LT(largest_difference(m.download(m.scratch.lse.rows(kOutputs)), m.download(expected.view())), 1e-5);
}

class VariantTest : public testing::TestWithParam<Variant> {};

TEST_P(VariantTest, EqualsThePlainImplementation) {
  GgufWriter writer = GetParam().make(GetParam().options);
  GetParam().change(writer);
  Loaded m(writer);
  const std::vector<int32_t> tokens = random_tokens(23, GetParam().options.vocab, 7);
  FakeCache cache(*m.backend, m.model->shape(), 1, 23);
  const Tensor x = prefill(m, cache, 0, tokens, {23}, 23);
  const Matrix expected = plain_decoder_logits(*m.file, tokens);
  // Activations are rounded to float32 between operations; logits are of magnitude 10.
  EXPECT_LT(largest_difference(m.logits(x.view(), Phase::kPrefill), expected), 1e-4);
  // The comparison means something: logits are neither constant nor the same at every position.
  EXPECT_GT(largest_difference({expected[0]}, {expected[22]}), 1.0);
}

std::vector<Variant> variants() {
  std::vector<float> factors;
  for (int i = 0; i < 8; ++i) factors.push_back(1.0f + static_cast<float>(i));
  const auto llama = test::tiny_llama, qwen2 = test::tiny_qwen2, qwen3 = test::tiny_qwen3;
  return {
      {"Llama", llama, {}},
      {"LlamaOwnHead", llama, {.weight_type = WeightType::kF16, .own_head = true}},
      {"LlamaBiases", llama, {.weight_type = WeightType::kBF16, .biases = true}},
      {"LlamaOneLayer", llama, {.layers = 1, .seed = 3, .weight_type = WeightType::kQ8_0}},
      {"LlamaNoGroups", llama, {.q_heads = 2, .kv_heads = 2, .weight_type = WeightType::kQ4_1}},
      {"LlamaOneKvHead", llama, {.q_heads = 3, .kv_heads = 1, .head_dim = 32, .width = 96}},
      {"LlamaHeadsWiderThanModel",
       llama,
       {.q_heads = 8, .kv_heads = 2, .head_dim = 32, .width = 64, .weight_type = WeightType::kQ5_0}},
      {"LlamaKQuants",
       llama,
       {.q_heads = 4,
        .kv_heads = 4,
        .head_dim = 64,
        .width = 256,
        .feed_forward = 256,
        .weight_type = WeightType::kQ4_K}},
      {"LlamaPartialRotation", llama, {}, [](auto& w) { w.set("llama.rope.dimension_count", uint32_t{8}); }},
      {"LlamaLinearScaling",
       llama,
       {},
       [](auto& w) { w.set("llama.rope.scaling.type", "linear").set("llama.rope.scaling.factor", 4.0f); }},
      {"Llama3Scaling", llama, {}, [factors](auto& w) { w.add_tensor("rope_freqs.weight", factors); }},
      {"Qwen2", qwen2, {}},
      {"Qwen2OwnHeadGroupsOfSeven",
       qwen2,
       {.layers = 3, .q_heads = 14, .kv_heads = 2, .weight_type = WeightType::kQ5_0, .own_head = true}},
      {"Qwen2PartialRotation", qwen2, {}, [](auto& w) { w.set("qwen2.rope.dimension_count", uint32_t{8}); }},
      {"Qwen3", qwen3, {}},
      {"Qwen3HeadsWiderThanModel",
       qwen3,
       {.q_heads = 4, .kv_heads = 2, .head_dim = 32, .weight_type = WeightType::kQ8_0, .own_head = true}},
  };
}

INSTANTIATE_TEST_SUITE_P(Variants, VariantTest, testing::ValuesIn(variants()),
                         [](const auto& test) { return test.param.name; });

struct TransformersLogit {
  size_t row, token;
  double value;
};
struct TransformersCase {
  std::string name;
  std::vector<int32_t> tokens;
  std::vector<TransformersLogit> logits;
};
const TransformersCase kTransformersCases[] = {
#include "tests/unit/model/tiny_cases.inc"
};

TEST(TransformersTest, LogitsAreTheSame) {
  const std::vector<test::TinyCase> models = test::tiny_cases();
  ASSERT_EQ(std::size(kTransformersCases), models.size());
  for (const TransformersCase& expected : kTransformersCases) {
    SCOPED_TRACE(expected.name);
    const auto model = std::ranges::find(models, expected.name, &test::TinyCase::name);
    ASSERT_NE(model, models.end());
    Loaded m(model->model);
    const auto count = static_cast<int32_t>(expected.tokens.size());
    FakeCache cache(*m.backend, m.model->shape(), 1, count);
    const Matrix logits = m.logits(prefill(m, cache, 0, expected.tokens, {count}, count).view(), Phase::kPrefill);
    ASSERT_FALSE(expected.logits.empty());
    for (const TransformersLogit& logit : expected.logits) {
      EXPECT_NEAR(logits[logit.row][logit.token], logit.value, 1e-4)
          << "row " << logit.row << ", token " << logit.token;
    }
  }
}

struct Architecture {
  std::string name;
  MakeModel make;
};
void PrintTo(const Architecture& architecture, std::ostream* out) { *out << architecture.name; }

class ArchitectureTest : public testing::TestWithParam<Architecture> {};

INSTANTIATE_TEST_SUITE_P(Architectures, ArchitectureTest,
                         testing::Values(Architecture{"Llama", test::tiny_llama},
                                         Architecture{"Qwen2", test::tiny_qwen2},
                                         Architecture{"Qwen3", test::tiny_qwen3}),
                         [](const auto& test) { return test.param.name; });

TEST_P(ArchitectureTest, ChunksChangeNothing) {
  Loaded m(GetParam().make({.layers = 3}));
  const std::vector<int32_t> tokens = random_tokens(31, 320, 11);
  FakeCache whole(*m.backend, m.model->shape(), 1, 31), pieces(*m.backend, m.model->shape(), 1, 31);
  const Matrix expected = m.logits(prefill(m, whole, 0, tokens, {31}, 31).view(), Phase::kPrefill);
  const Matrix chunked = m.logits(prefill(m, pieces, 0, tokens, {8, 1, 16, 6}, 31).view(), Phase::kPrefill);
  EXPECT_EQ(largest_difference(chunked, expected), 0.0);
  EXPECT_EQ(whole.pool(), pieces.pool());
}

TEST_P(ArchitectureTest, OutputsOfTheLastLayerChangeOnlyWhatIsNotAskedFor) {
  Loaded m(GetParam().make({}));
  const std::vector<int32_t> tokens = random_tokens(20, 320, 12);
  FakeCache all(*m.backend, m.model->shape(), 1, 20);
  const Matrix expected = m.logits(prefill(m, all, 0, tokens, {20}, 20).view(), Phase::kPrefill);
  const Matrix queries = m.download(m.scratch.q.rows(20));
  for (int32_t outputs : {0, 1, 7, 19}) {
    FakeCache some(*m.backend, m.model->shape(), 1, 20);
    const Tensor x = prefill(m, some, 0, tokens, {20}, outputs);
    const Matrix last = m.logits(x.view().slice_rows(20 - outputs, outputs), Phase::kPrefill);
    EXPECT_EQ(largest_difference(last, {expected.end() - outputs, expected.end()}), 0.0) << outputs;
    EXPECT_EQ(largest_difference(m.download(m.scratch.q.rows(20)), queries), 0.0) << outputs;
    EXPECT_EQ(some.pool(), all.pool()) << outputs;
  }
  FakeCache chunked(*m.backend, m.model->shape(), 1, 20);
  const Tensor x = prefill(m, chunked, 0, tokens, {8, 8, 4}, 6);  // begins inside the second chunk
  const Matrix last = m.logits(x.view().slice_rows(14, 6), Phase::kPrefill);
  EXPECT_EQ(largest_difference(last, {expected.end() - 6, expected.end()}), 0.0);
}

TEST_P(ArchitectureTest, DecodeStepsOfSeveralSequencesContinueThem) {
  Loaded m(GetParam().make({}));
  const std::vector<int32_t> first = random_tokens(18, 320, 13), second = random_tokens(9, 320, 14);
  const Matrix expected_first = plain_decoder_logits(*m.file, first),
               expected_second = plain_decoder_logits(*m.file, second);
  FakeCache cache(*m.backend, m.model->shape(), 2, 18);
  prefill(m, cache, 0, {first.begin(), first.begin() + 15}, {15}, 0);
  prefill(m, cache, 1, {second.begin(), second.begin() + 6}, {4, 2}, 0);
  for (int32_t i = 0; i < 3; ++i) {
    const std::vector<FakeCache::Rows> rows = {{1, 6 + i, {second[static_cast<size_t>(6 + i)]}},
                                               {0, 15 + i, {first[static_cast<size_t>(15 + i)]}}};
    const Matrix logits = decode(m, cache, rows);
    EXPECT_LT(largest_difference({logits[0]}, {expected_second[static_cast<size_t>(6 + i)]}), 1e-4);
    EXPECT_LT(largest_difference({logits[1]}, {expected_first[static_cast<size_t>(15 + i)]}), 1e-4);
  }
}

}  // namespace
}  // namespace pkv
