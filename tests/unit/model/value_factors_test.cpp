// The heads' value factors, and what tells model files apart.
#include "server/model/value_factors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "absl/strings/str_cat.h"
#include "kernels/quant.h"
#include "server/model/fingerprint.h"
#include "tests/support/gguf_writer.h"

namespace pkv {
namespace {

// The lengths of values through a head's part of the output projection and through its factor.
TEST(ValueFactors, KeepTheLengthOfWhatAValueAddsToTheOutput) {
  for (const WeightType type : {WeightType::kF32, WeightType::kQ8_0}) {
    const auto file = *GgufFile::open(test::make_tiny_llama({.weight_type = type}).path());
    const auto backend = *make_backend({.device = "reference"});
    const auto model = *load_model(*file, *backend);
    const ModelShape& shape = model->shape();
    const auto d = static_cast<size_t>(shape.head_dim), width = static_cast<size_t>(shape.q_heads) * d;
    const TensorView factors = model->value_factors();
    ASSERT_EQ(factors.rows, shape.layers * static_cast<int64_t>(width));
    ASSERT_EQ(factors.cols, shape.head_dim);
    EXPECT_EQ(model->resident_bytes() - model->weight_bytes(), static_cast<size_t>(factors.rows) * d * sizeof(float));
    std::vector<float> rows(static_cast<size_t>(factors.rows) * d);
    backend->fetch({rows.data(), factors});
    for (size_t layer = 0; layer < static_cast<size_t>(shape.layers); ++layer) {
      const GgufTensor& tensor = *file->find_tensor(absl::StrCat("blk.", layer, ".attn_output.weight"));
      std::vector<float> weights(static_cast<size_t>(shape.width) * width);  // [D][Hq * d]
      quant_traits(tensor.type).decode(tensor.data.data(), weights.data(), static_cast<int64_t>(weights.size()));
      for (size_t head = 0; head < static_cast<size_t>(shape.q_heads); ++head) {
        std::vector<double> value;
        for (size_t i = 0; i < d; ++i) value.push_back(std::sin(1.0 + static_cast<double>(i * (head + 3))));
        double exact = 0, by_factor = 0;
        for (size_t output = 0; output < static_cast<size_t>(shape.width); ++output) {
          double sum = 0;
          for (size_t i = 0; i < d; ++i) sum += value[i] * static_cast<double>(weights[output * width + head * d + i]);
          exact += sum * sum;
        }
        for (size_t column = 0; column < d; ++column) {
          double sum = 0;
          for (size_t i = 0; i < d; ++i) {
            const float factor = rows[(layer * width + head * d + i) * d + column];
            EXPECT_TRUE(column <= i || factor == 0.0f);
            sum += value[i] * static_cast<double>(factor);
          }
          by_factor += sum * sum;
        }
        EXPECT_NEAR(std::sqrt(by_factor), std::sqrt(exact), 1e-5 * std::sqrt(exact)) << layer << " " << head;
      }
    }
  }
}

TEST(ModelFingerprint, IsOfTheTensors) {
  const auto of = [](const test::TinyModelOptions& options) {
    return model_fingerprint(**GgufFile::open(test::make_tiny_llama(options).path()));
  };
  const std::string plain = of({});
  EXPECT_EQ(plain.size(), 16u);
  EXPECT_EQ(of({}), plain);
  EXPECT_EQ(of({.context = 99}), plain);  // what the file says beside its tensors is not looked at
  EXPECT_NE(of({.weight_type = WeightType::kQ8_0}), plain);
  EXPECT_NE(of({.layers = 3}), plain);
  EXPECT_NE(of({.seed = 2}), plain);
}

}  // namespace
}  // namespace pkv
