// The llama architecture on tiny random models: against a plain implementation, and the ways a server runs it
// (layer-major chunks, only the last rows carried on, decode steps of several sequences) against each other.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

#include "kernels/backend.h"
#include "kernels/check.h"
#include "server/model/model.h"
#include "tests/support/gguf_writer.h"
#include "tests/unit/model/fake_cache.h"
#include "tests/unit/model/plain_llama.h"

namespace pkv {
namespace {

using test::FakeCache;
using test::Matrix;
using test::plain_llama_logits;
using test::TinyLlamaOptions;

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

  explicit Loaded(const test::GgufWriter& writer, int32_t max_rows = 64) {
    backend = *make_backend({.device = "reference"});
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
  m.model->embed(tokens.data(), x.view());
  for (int32_t layer = 0; layer < m.model->shape().layers; ++layer) {
    int32_t begin = 0;
    for (int32_t rows : chunks) {
      const FakeCache::Rows part = {sequence, begin, {tokens.begin() + begin, tokens.begin() + begin + rows}};
      const StepPlan plan = cache.plan(Phase::kPrefill, {&part, 1}, layer, 1);
      const bool last_layer = layer + 1 == m.model->shape().layers;
      const int32_t carried = last_layer ? std::clamp(begin + rows - (count - outputs), 0, rows) : rows;
      m.model->run_layer(plan, layer, x.view().slice_rows(begin, rows), m.scratch, carried);
      begin += rows;
    }
    EXPECT_EQ(begin, count);
  }
  return x;
}

// One decode step of several sequences; the logits of each.
Matrix decode(Loaded& m, FakeCache& cache, const std::vector<FakeCache::Rows>& rows) {
  const StepPlan plan = cache.plan(Phase::kDecode, rows, 0, m.model->shape().layers);
  const Tensor x = *m.backend->allocate(plan.rows(), m.model->shape().width, DType::kF32);
  m.model->embed(plan.token_ids.data(), x.view());
  for (int32_t layer = 0; layer < m.model->shape().layers; ++layer) {
    m.model->run_layer(plan, layer, x.view(), m.scratch, plan.rows());
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

struct Variant {
  std::string name;
  TinyLlamaOptions options;
  std::function<void(test::GgufWriter&)> change = [](test::GgufWriter&) {};
};
void PrintTo(const Variant& variant, std::ostream* out) { *out << variant.name; }

class LlamaVariantTest : public testing::TestWithParam<Variant> {};

TEST_P(LlamaVariantTest, EqualsThePlainImplementation) {
  test::GgufWriter writer = tiny_llama(GetParam().options);
  GetParam().change(writer);
  Loaded m(writer);
  const std::vector<int32_t> tokens = random_tokens(23, GetParam().options.vocab, 7);
  FakeCache cache(m.model->shape(), 1, 23);
  const Tensor x = prefill(m, cache, 0, tokens, {23}, 23);
  const Matrix expected = plain_llama_logits(*m.file, tokens);
  // Activations are rounded to float32 between operations; logits are of magnitude 10.
  EXPECT_LT(largest_difference(m.logits(x.view(), Phase::kPrefill), expected), 1e-4);
  // The comparison means something: logits are neither constant nor the same at every position.
  EXPECT_GT(largest_difference({expected[0]}, {expected[22]}), 1.0);
}

std::vector<Variant> variants() {
  std::vector<float> factors;
  for (int i = 0; i < 8; ++i) factors.push_back(1.0f + static_cast<float>(i));
  return {
      {"Default", {}},
      {"OwnHead", {.weight_type = WeightType::kF16, .own_head = true}},
      {"Biases", {.weight_type = WeightType::kBF16, .biases = true}},
      {"OneLayer", {.layers = 1, .seed = 3, .weight_type = WeightType::kQ8_0}},
      {"NoGroups", {.q_heads = 2, .kv_heads = 2, .weight_type = WeightType::kQ4_1}},
      {"OneKvHead", {.q_heads = 3, .kv_heads = 1, .head_dim = 32, .width = 96}},
      {"HeadsWiderThanModel",
       {.q_heads = 8, .kv_heads = 2, .head_dim = 32, .width = 64, .weight_type = WeightType::kQ5_0}},
      {"KQuants",
       {.q_heads = 4,
        .kv_heads = 4,
        .head_dim = 64,
        .width = 256,
        .feed_forward = 256,
        .weight_type = WeightType::kQ4_K}},
      {"PartialRotation", {}, [](auto& w) { w.set("llama.rope.dimension_count", uint32_t{8}); }},
      {"LinearScaling",
       {},
       [](auto& w) { w.set("llama.rope.scaling.type", "linear").set("llama.rope.scaling.factor", 4.0f); }},
      {"Llama3Scaling", {}, [factors](auto& w) { w.add_tensor("rope_freqs.weight", factors); }},
  };
}

INSTANTIATE_TEST_SUITE_P(Variants, LlamaVariantTest, testing::ValuesIn(variants()),
                         [](const auto& test) { return test.param.name; });

TEST(LlamaTest, ChunksChangeNothing) {
  Loaded m(test::tiny_llama({.layers = 3}));
  const std::vector<int32_t> tokens = random_tokens(31, 320, 11);
  FakeCache whole(m.model->shape(), 1, 31), pieces(m.model->shape(), 1, 31);
  const Matrix expected = m.logits(prefill(m, whole, 0, tokens, {31}, 31).view(), Phase::kPrefill);
  const Matrix chunked = m.logits(prefill(m, pieces, 0, tokens, {8, 1, 16, 6}, 31).view(), Phase::kPrefill);
  EXPECT_EQ(largest_difference(chunked, expected), 0.0);
  EXPECT_EQ(whole.pool(), pieces.pool());
}

TEST(LlamaTest, OutputsOfTheLastLayerChangeOnlyWhatIsNotAskedFor) {
  Loaded m(test::tiny_llama());
  const std::vector<int32_t> tokens = random_tokens(20, 320, 12);
  FakeCache all(m.model->shape(), 1, 20);
  const Matrix expected = m.logits(prefill(m, all, 0, tokens, {20}, 20).view(), Phase::kPrefill);
  const Matrix queries = m.download(m.scratch.q.rows(20));
  for (int32_t outputs : {0, 1, 7, 19}) {
    FakeCache some(m.model->shape(), 1, 20);
    const Tensor x = prefill(m, some, 0, tokens, {20}, outputs);
    const Matrix last = m.logits(x.view().slice_rows(20 - outputs, outputs), Phase::kPrefill);
    EXPECT_EQ(largest_difference(last, {expected.end() - outputs, expected.end()}), 0.0) << outputs;
    EXPECT_EQ(largest_difference(m.download(m.scratch.q.rows(20)), queries), 0.0) << outputs;
    EXPECT_EQ(some.pool(), all.pool()) << outputs;
  }
  FakeCache chunked(m.model->shape(), 1, 20);
  const Tensor x = prefill(m, chunked, 0, tokens, {8, 8, 4}, 6);  // begins inside the second chunk
  const Matrix last = m.logits(x.view().slice_rows(14, 6), Phase::kPrefill);
  EXPECT_EQ(largest_difference(last, {expected.end() - 6, expected.end()}), 0.0);
}

TEST(LlamaTest, DecodeStepsOfSeveralSequencesContinueThem) {
  Loaded m(test::tiny_llama());
  const std::vector<int32_t> first = random_tokens(18, 320, 13), second = random_tokens(9, 320, 14);
  const Matrix expected_first = plain_llama_logits(*m.file, first),
               expected_second = plain_llama_logits(*m.file, second);
  FakeCache cache(m.model->shape(), 2, 18);
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
