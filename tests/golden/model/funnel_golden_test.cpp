// What funnel keeps of a real prompt in exact mode, against its rules (docs/policies.md) in float64 over the model's
// own queries, keys and values, with the whole output projection.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "kernels/entry_format.h"
#include "kernels/quant.h"
#include "tests/golden/model/golden_support.h"
#include "tests/support/prompt_run.h"

namespace pkv {
namespace {

// A choice between scores nearer than that is one of rounding.
constexpr double kNearCut = 1e-3;
constexpr int32_t kLayers[] = {1, 14, 29};

// One layer as the model computed it: q rotated, rows of the prompt.
struct Layer {
  std::vector<float> q;                  // [n][Hq * d]
  std::vector<std::vector<float>> k, v;  // [Hkv] of [n][d]
};

std::map<int32_t, Layer> observed_layers(const Model& model, const std::vector<TokenId>& prompt) {
  const auto n = static_cast<int32_t>(prompt.size());
  const ModelShape& shape = model.shape();
  std::map<int32_t, Layer> layers;
  for (const int32_t layer : kLayers) layers[layer];
  auto run = *PromptRun::create(model, KvDtype::kF32, n);
  const auto observe = [&](int32_t index, int32_t first_row, const TensorView& q, const KvView& kv) {
    const auto found = layers.find(index);
    if (found == layers.end()) return;
    Layer& layer = found->second;
    const size_t at = layer.q.size();
    layer.q.resize(at + static_cast<size_t>(q.rows * q.cols));
    model.backend().fetch({layer.q.data() + at, q});
    if (first_row + q.rows < n) return;
    for (int32_t head = 0; head < shape.kv_heads; ++head) {
      const Lane& lane = kv.lanes[head];
      const PageLayout layout = page_layout(kv, lane);
      layer.k.emplace_back();
      layer.v.emplace_back();
      for (int32_t slot = 0; slot < n; ++slot) {
        const std::byte* page = kv.page(lane, slot / layout.slots());
        for (int32_t i = 0; i < shape.head_dim; ++i) {
          const auto element = [&](int32_t offset) { return *reinterpret_cast<const float*>(page + offset); };
          layer.k.back().push_back(element(layout.key_at(slot % layout.slots(), i)));
          layer.v.back().push_back(element(layout.value_at(slot % layout.slots(), i)));
        }
      }
    }
  };
  const absl::Status status = run->prefill(prompt, observe);
  EXPECT_TRUE(status.ok()) << status;
  return layers;
}

class PlainFunnel {
 public:
  PlainFunnel(const golden::Loaded& loaded, const Layer& layer, int32_t index)
      : shape_(loaded.model->shape()), layer_(layer), d_(shape_.head_dim) {
    n_ = static_cast<int32_t>(layer.k[0].size()) / d_;
    base_ = *loaded.file->number("llama.rope.freq_base");
    const GgufTensor& tensor = *loaded.file->find_tensor(absl::StrCat("blk.", index, ".attn_output.weight"));
    projection_.resize(static_cast<size_t>(shape_.width) * static_cast<size_t>(shape_.q_heads * d_));
    quant_traits(tensor.type).decode(tensor.data.data(), projection_.data(), static_cast<int64_t>(projection_.size()));
  }

  // Of the entries before the window of 32.
  std::vector<double> scores(int32_t kv_head) const {
    const int32_t past = n_ - 32, first = std::min(64, n_ / 4), count = std::min(256, n_ - 64);
    std::vector<std::pair<int32_t, int32_t>> future, newest;  // row, position
    for (int32_t k = 0; k < count; ++k) {
      future.emplace_back(first + k * (n_ - 1 - first) / (count - 1), n_ + 37 * k % 64);
    }
    for (int32_t row = n_ - 8; row < n_; ++row) newest.emplace_back(row, row);
    std::vector<double> a = pooled(kv_head, newest, past), b = pooled(kv_head, future, past), joined;
    const double a_mean = std::accumulate(a.begin(), a.end(), 0.0) / past;
    const double b_mean = std::accumulate(b.begin(), b.end(), 0.0) / past;
    for (size_t j = 0; j < a.size(); ++j) joined.push_back(std::max(a[j] / a_mean, b[j] / b_mean));
    return joined;
  }

 private:
  std::vector<double> pooled(int32_t kv_head, const std::vector<std::pair<int32_t, int32_t>>& rows,
                             int32_t past) const {
    const int32_t group = shape_.q_heads / shape_.kv_heads;
    std::vector<double> squares(static_cast<size_t>(past), 0.0);
    for (int32_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
      std::vector<double> of_head(static_cast<size_t>(past), 0.0);
      for (const auto& [row, position] : rows) {
        const std::vector<double> query = turned(row, position, head);
        std::vector<double> weights;
        for (int32_t j = 0; j < std::min(n_, position + 1); ++j) {
          const float* key = layer_.k[static_cast<size_t>(kv_head)].data() + j * d_;
          weights.push_back(std::inner_product(key, key + d_, query.begin(), 0.0) / std::sqrt(d_));
        }
        const double top = *std::max_element(weights.begin(), weights.end());
        double sum = 0;
        for (double& weight : weights) sum += weight = std::exp(weight - top);
        for (int32_t j = 0; j < past; ++j) {
          of_head[static_cast<size_t>(j)] += std::pow(weights[static_cast<size_t>(j)] / sum, 2);
        }
      }
      for (int32_t j = 0; j < past; ++j) {
        squares[static_cast<size_t>(j)] += of_head[static_cast<size_t>(j)] / static_cast<double>(rows.size()) / group *
                                           std::pow(output_length(kv_head, head, j), 2);
      }
    }
    std::vector<double> pooled;
    for (int32_t j = 0; j < past; ++j) {
      const auto from = squares.begin() + std::max(0, j - 2), to = squares.begin() + std::min(past, j + 3);
      pooled.push_back(std::sqrt(*std::max_element(from, to)));
    }
    return pooled;
  }

  // Neighbours turn by pairs.
  std::vector<double> turned(int32_t row, int32_t position, int32_t head) const {
    const float* q = layer_.q.data() + static_cast<size_t>(row * shape_.q_heads + head) * static_cast<size_t>(d_);
    std::vector<double> query(q, q + d_);
    for (int32_t i = 0; i < d_ / 2 && position != row; ++i) {
      const double angle = (position - row) * std::pow(base_, -2.0 * i / d_);
      double &x = query[static_cast<size_t>(2 * i)], &y = query[static_cast<size_t>(2 * i + 1)];
      const double a = x, b = y;
      x = a * std::cos(angle) - b * std::sin(angle);
      y = a * std::sin(angle) + b * std::cos(angle);
    }
    return query;
  }

  // |v W_o|: what the entry's value adds to the layer's output through the query head.
  double output_length(int32_t kv_head, int32_t head, int32_t j) const {
    const float* value = layer_.v[static_cast<size_t>(kv_head)].data() + j * d_;
    double squares = 0;
    for (int32_t o = 0; o < shape_.width; ++o) {
      const float* inputs =
          projection_.data() + static_cast<size_t>(o * shape_.q_heads + head) * static_cast<size_t>(d_);
      const double sum = std::inner_product(value, value + d_, inputs, 0.0);
      squares += sum * sum;
    }
    return std::sqrt(squares);
  }

  const ModelShape& shape_;
  const Layer& layer_;
  int32_t d_, n_ = 0;
  double base_ = 0;
  std::vector<float> projection_;  // [D][Hq * d]
};

TEST(Funnel, KeepsWhatItsRulesSayOfARealPrompt) {
  const std::vector<TokenId> prompt = golden::prompt_tokens("needles_chat");
  const auto n = static_cast<int32_t>(prompt.size());
  const PolicyRow& row = policy_row(PolicyKind::kFunnel);
  const PolicySpec spec{.kind = row.kind,
                        .params = row.defaults,
                        .budget = {.kind = BudgetKind::kTokens, .tokens = 128},
                        .kv_dtype = KvDtype::kF32,
                        .lane_table = golden::lane_table()};
  auto engine = golden::make_engine(golden::exact());
  const auto sink = golden::answer(*engine, golden::make_request(prompt, spec, 1));
  const std::map<int32_t, Layer> layers = observed_layers(*golden::exact().model, prompt);
  const std::vector<int32_t> budgets =
      table_lane_budgets(*golden::lane_table(), 128, n, 36, {.layers = 30, .kv_heads = 3});
  size_t differing = 0;
  for (const auto& [index, layer] : layers) {
    const PlainFunnel plain(golden::exact(), layer, index);
    for (int32_t head = 0; head < 3; ++head) {
      const std::vector<int32_t>& kept =
          sink->result().cache.layers[static_cast<size_t>(index)].kept_positions[static_cast<size_t>(head)];
      ASSERT_EQ(static_cast<int32_t>(kept.size()), budgets[static_cast<size_t>(index * 3 + head)]);
      const std::vector<double> scores = plain.scores(head);
      std::vector<int32_t> order(static_cast<size_t>(n - 36));  // sinks and window are kept in any case
      std::iota(order.begin(), order.end(), 4);
      std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
        return scores[static_cast<size_t>(a)] > scores[static_cast<size_t>(b)];
      });
      const size_t ranked = kept.size() - 36;
      std::vector<int32_t> expected(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(ranked));
      for (int32_t position = 0; position < 4; ++position) expected.push_back(position);
      for (int32_t position = n - 32; position < n; ++position) expected.push_back(position);
      std::sort(expected.begin(), expected.end());
      std::vector<int32_t> either;
      std::set_symmetric_difference(kept.begin(), kept.end(), expected.begin(), expected.end(),
                                    std::back_inserter(either));
      differing += either.size();
      for (const int32_t position : either) {
        ASSERT_TRUE(position >= 4 && position < n - 32);
        const double cut = scores[static_cast<size_t>(order[ranked])];
        EXPECT_NEAR(scores[static_cast<size_t>(position)], cut, kNearCut * cut)
            << "layer " << index << ", KV head " << head << ", position " << position;
      }
    }
  }
  EXPECT_LE(differing, 8u);
}

}  // namespace
}  // namespace pkv
