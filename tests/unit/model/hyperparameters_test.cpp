// Shape and rotary frequencies as read from a file, against the formulas and against every wrong value.
#include "server/model/hyperparameters.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>

#include "tests/support/gguf_writer.h"

namespace pkv {
namespace {

using test::GgufWriter;
using testing::HasSubstr;

std::unique_ptr<GgufFile> open(const GgufWriter& writer) { return *GgufFile::open(writer.write().path()); }

RopeParameters rope_of(const GgufWriter& writer) {
  const std::unique_ptr<GgufFile> file = open(writer);
  return *read_rope(*file, *read_shape(*file, "llama"));
}

TEST(HyperparametersTest, ReadsTheShape) {
  const auto file = open(test::tiny_llama({.layers = 3,
                                           .q_heads = 6,
                                           .kv_heads = 3,
                                           .head_dim = 8,
                                           .width = 96,
                                           .feed_forward = 160,
                                           .vocab = 300,
                                           .context = 77}));
  const absl::StatusOr<ModelShape> shape = read_shape(*file, "llama");
  ASSERT_TRUE(shape.ok()) << shape.status();
  EXPECT_EQ(shape->architecture, "llama");
  EXPECT_EQ(shape->layers, 3);
  EXPECT_EQ(shape->q_heads, 6);
  EXPECT_EQ(shape->kv_heads, 3);
  EXPECT_EQ(shape->head_dim, 8);
  EXPECT_EQ(shape->width, 96);
  EXPECT_EQ(shape->feed_forward, 160);
  EXPECT_EQ(shape->vocab_size, 300);
  EXPECT_EQ(shape->max_positions, 77);
  EXPECT_EQ(shape->rms_eps, 1e-5f);
  EXPECT_EQ(shape->group(), 2);
}

TEST(HyperparametersTest, AbsentKeysHaveTheirDefaults) {
  GgufWriter writer = test::tiny_llama();
  writer.remove("llama.attention.head_count_kv")
      .remove("llama.attention.key_length")
      .remove("llama.attention.value_length");
  writer.remove("llama.rope.dimension_count").remove("llama.vocab_size");
  const auto file = open(writer);
  const absl::StatusOr<ModelShape> shape = read_shape(*file, "llama");
  ASSERT_TRUE(shape.ok()) << shape.status();
  EXPECT_EQ(shape->kv_heads, 4);   // as many as query heads
  EXPECT_EQ(shape->head_dim, 16);  // width 64 / 4 heads
  EXPECT_EQ(shape->vocab_size, 320);
  EXPECT_EQ(read_rope(*file, *shape)->inv_freq.size(), 8u);
}

TEST(HyperparametersTest, ASlidingWindowLimitsThePositions) {
  GgufWriter writer = test::tiny_llama({.context = 1000});
  writer.set("llama.attention.sliding_window", uint32_t{300});
  EXPECT_EQ(read_shape(*open(writer), "llama")->max_positions, 300);
  writer.set("llama.attention.sliding_window", uint32_t{4000});
  EXPECT_EQ(read_shape(*open(writer), "llama")->max_positions, 1000);
  writer.set("llama.attention.sliding_window", uint32_t{0});
  EXPECT_EQ(read_shape(*open(writer), "llama")->max_positions, 1000);
}

TEST(RopeTest, FrequenciesWithoutScaling) {
  GgufWriter writer = test::tiny_llama();
  writer.set("llama.rope.freq_base", 500000.0f).set("llama.rope.dimension_count", uint32_t{12});
  const RopeParameters rope = rope_of(writer);
  ASSERT_EQ(rope.inv_freq.size(), 6u);
  EXPECT_EQ(rope.magnitude, 1.0f);
  for (int i = 0; i < 6; ++i) {
    EXPECT_EQ(rope.inv_freq[static_cast<size_t>(i)], static_cast<float>(std::pow(500000.0, -2.0 * i / 12))) << i;
  }
}

TEST(RopeTest, LinearScalingStretchesPositions) {
  const GgufWriter plain = test::tiny_llama();
  GgufWriter named = plain, unnamed = plain, old = plain, none = plain;
  named.set("llama.rope.scaling.type", "linear").set("llama.rope.scaling.factor", 8.0f);
  unnamed.set("llama.rope.scaling.factor", 8.0f);
  old.set("llama.rope.scale_linear", 8.0f);
  none.set("llama.rope.scaling.type", "none").set("llama.rope.scaling.factor", 8.0f);
  const std::vector<float> expected = rope_of(plain).inv_freq;
  for (const GgufWriter* writer : {&named, &unnamed, &old}) {
    const std::vector<float> scaled = rope_of(*writer).inv_freq;
    for (size_t i = 0; i < expected.size(); ++i) EXPECT_EQ(scaled[i], expected[i] / 8) << i;  // exact: a power of two
  }
  EXPECT_EQ(rope_of(none).inv_freq, expected);
}

TEST(RopeTest, Llama3FactorsDivideTheFrequencies) {
  // The factors a converter computes for Llama 3.1 (arXiv 2407.21783; factor 8, low 1, high 4, original context 8192),
  // for a rotation of 8 pairs with base 500000.
  constexpr double kFactor = 8, kLow = 1, kHigh = 4, kOriginal = 8192;
  std::vector<float> factors;
  for (int i = 0; i < 8; ++i) {
    const double wavelength = 2 * M_PI * std::pow(500000.0, 2.0 * i / 16);
    const double smooth = (kOriginal / wavelength - kLow) / (kHigh - kLow);
    factors.push_back(static_cast<float>(wavelength < kOriginal / kHigh  ? 1
                                         : wavelength > kOriginal / kLow ? kFactor
                                                                         : 1 / ((1 - smooth) / kFactor + smooth)));
  }
  EXPECT_EQ(factors.front(), 1.0f);
  EXPECT_EQ(factors.back(), 8.0f);
  GgufWriter writer = test::tiny_llama();
  writer.set("llama.rope.freq_base", 500000.0f).add_tensor("rope_freqs.weight", factors);
  const RopeParameters rope = rope_of(writer);
  ASSERT_EQ(rope.inv_freq.size(), 8u);
  for (size_t i = 0; i < 8; ++i) {
    const double expected = std::pow(500000.0, -2.0 * static_cast<double>(i) / 16) / static_cast<double>(factors[i]);
    EXPECT_EQ(rope.inv_freq[i], static_cast<float>(expected)) << i;
  }
}

struct WrongValue {
  std::string name;
  std::string message;
  std::function<void(GgufWriter&)> change;
  absl::StatusCode code = absl::StatusCode::kInvalidArgument;
};
void PrintTo(const WrongValue& wrong, std::ostream* out) { *out << wrong.name; }

class WrongHyperparameterTest : public testing::TestWithParam<WrongValue> {};

TEST_P(WrongHyperparameterTest, IsRefusedByName) {
  GgufWriter writer = test::tiny_llama();
  GetParam().change(writer);
  const auto file = open(writer);
  const absl::StatusOr<ModelShape> shape = read_shape(*file, "llama");
  const absl::Status status = shape.ok() ? read_rope(*file, *shape).status() : shape.status();
  EXPECT_EQ(status.code(), GetParam().code) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(GetParam().message));
}

std::vector<WrongValue> wrong_values() {
  constexpr absl::StatusCode kUnimplemented = absl::StatusCode::kUnimplemented;
  const auto set = [](const std::string& key, auto value) {
    return [key, value](GgufWriter& w) { w.set("llama." + key, value); };
  };
  return {
      {"NoLayers", "key 'llama.block_count': 0 is not between", set("block_count", uint32_t{0})},
      {"MissingLayers", "key 'llama.block_count' is missing", [](GgufWriter& w) { w.remove("llama.block_count"); }},
      {"ManyLayers", "key 'llama.block_count': 4294967295", set("block_count", ~uint32_t{0})},
      {"MissingWidth", "key 'llama.embedding_length' is missing",
       [](GgufWriter& w) { w.remove("llama.embedding_length"); }},
      {"FeedForwardPerLayer", "key 'llama.feed_forward_length': an unsigned integer is expected, the file has an array",
       set("feed_forward_length", std::vector<int32_t>{96, 96})},
      {"NoHeads", "key 'llama.attention.head_count': 0", set("attention.head_count", uint32_t{0})},
      {"HeadsDoNotDivideTheWidth", "key 'llama.attention.head_count': 5 heads do not divide the width 64",
       [](GgufWriter& w) { w.remove("llama.attention.key_length").set("llama.attention.head_count", uint32_t{5}); }},
      {"KvHeadsDoNotDivide", "key 'llama.attention.head_count_kv': 3 key/value heads do not divide the 4 query heads",
       set("attention.head_count_kv", uint32_t{3})},
      {"MoreKvHeads", "key 'llama.attention.head_count_kv': 8", set("attention.head_count_kv", uint32_t{8})},
      {"ValueLength", "key 'llama.attention.value_length'", set("attention.value_length", uint32_t{8}), kUnimplemented},
      {"NoEpsilon", "key 'llama.attention.layer_norm_rms_epsilon': 0 is not a positive",
       set("attention.layer_norm_rms_epsilon", 0.0f)},
      {"NotANumber", "key 'llama.attention.layer_norm_rms_epsilon': nan",
       set("attention.layer_norm_rms_epsilon", std::numeric_limits<float>::quiet_NaN())},
      {"NoContext", "key 'llama.context_length': 0", set("context_length", uint32_t{0})},
      {"Experts", "key 'llama.expert_count': a mixture of experts", set("expert_count", uint32_t{8}), kUnimplemented},
      {"VocabSize", "key 'llama.vocab_size': 321, but tensor 'token_embd.weight' has 320 rows",
       set("vocab_size", uint32_t{321})},
      {"TokenCount", "key 'tokenizer.ggml.tokens': 1 tokens, but tensor 'token_embd.weight' has 320 rows",
       [](GgufWriter& w) { w.set("tokenizer.ggml.tokens", std::vector<std::string>{"a"}); }},
      {"NoEmbedding", "tensor 'token_embd.weight' is missing",
       [](GgufWriter& w) { w.remove_tensor("token_embd.weight"); }},
      {"OddRotation", "key 'llama.rope.dimension_count': 7 is odd", set("rope.dimension_count", uint32_t{7})},
      {"RotationBeyondTheHead", "key 'llama.rope.dimension_count': 18", set("rope.dimension_count", uint32_t{18})},
      {"NegativeBase", "key 'llama.rope.freq_base': -1", set("rope.freq_base", -1.0f)},
      {"Yarn", "key 'llama.rope.scaling.type': 'yarn'", set("rope.scaling.type", "yarn"), kUnimplemented},
      {"LongRope", "key 'llama.rope.scaling.type': 'longrope'", set("rope.scaling.type", "longrope"), kUnimplemented},
      {"ScalingTypeNumber", "key 'llama.rope.scaling.type': a string is expected",
       set("rope.scaling.type", uint32_t{1})},
      {"ZeroFactor", "key 'llama.rope.scaling.factor': 0", set("rope.scaling.factor", 0.0f)},
      {"FewFrequencyFactors", "tensor 'rope_freqs.weight': it does not have 8 elements",
       [](GgufWriter& w) { w.add_tensor("rope_freqs.weight", std::vector<float>(7, 1.0f)); }},
      {"ZeroFrequencyFactor", "tensor 'rope_freqs.weight': element 3 is 0",
       [](GgufWriter& w) {
         w.add_tensor("rope_freqs.weight", {1, 1, 1, 0, 1, 1, 1, 1});
       }},
  };
}

INSTANTIATE_TEST_SUITE_P(Keys, WrongHyperparameterTest, testing::ValuesIn(wrong_values()),
                         [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace pkv
