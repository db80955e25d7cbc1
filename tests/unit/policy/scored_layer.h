// One layer of one sequence as a policy sees it straight after a prompt, what the policy makes of it, and a plain
// selection by the result.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "server/cache/layer_lanes.h"
#include "server/policy/observed_attention.h"
#include "server/policy/policy.h"
#include "tests/support/backend_array.h"

namespace pkv {

// What a model would have computed for a prompt of `tokens`, rotated.
struct LayerInput {
  int32_t tokens = 0, q_heads = 0, kv_heads = 0, head_dim = 0;
  std::vector<float> q;  // [tokens, Hq * d]
  std::vector<float> k;  // [tokens, Hkv * d]

  std::span<const float> query(int32_t row, int32_t head) const { return vector_of(q, row * q_heads + head); }
  std::span<const float> key(int32_t row, int32_t kv_head) const { return vector_of(k, row * kv_heads + kv_head); }

 private:
  std::span<const float> vector_of(const std::vector<float>& from, int32_t index) const {
    const auto d = static_cast<size_t>(head_dim);
    return std::span(from).subspan(static_cast<size_t>(index) * d, d);
  }
};

// The causal attention of a row to every slot.
inline std::vector<double> attention(const LayerInput& layer, int32_t row, int32_t q_head) {
  std::vector<double> weights(static_cast<size_t>(layer.tokens), 0.0);
  const int32_t kv_head = q_head / (layer.q_heads / layer.kv_heads);
  double sum = 0;
  for (int32_t slot = 0; slot <= row; ++slot) {
    const auto q = layer.query(row, q_head), k = layer.key(slot, kv_head);
    const double product = std::inner_product(q.begin(), q.end(), k.begin(), 0.0);
    sum += weights[static_cast<size_t>(slot)] = std::exp(product / std::sqrt(layer.head_dim));
  }
  for (double& weight : weights) weight /= sum;
  return weights;
}

// Random shape and contents, the same with every standard library. Queries are sharpened, so that attention is far from
// uniform.
inline LayerInput random_layer(std::mt19937& random) {
  const auto between = [&](int32_t low, int32_t high) {
    return low + static_cast<int32_t>(random() % static_cast<uint32_t>(high - low + 1));
  };
  LayerInput layer{.tokens = between(1, 60), .kv_heads = between(1, 3), .head_dim = 4 * between(1, 4)};
  layer.q_heads = layer.kv_heads * between(1, 3);
  const auto fill = [&](std::vector<float>& rows, int32_t heads, float scale) {
    rows.resize(static_cast<size_t>(layer.tokens * heads * layer.head_dim));
    for (float& value : rows) value = scale * (static_cast<float>(random() % 65536) / 32768.0f - 1.0f);
  };
  fill(layer.q, layer.q_heads, 4.0f);
  fill(layer.k, layer.kv_heads, 1.0f);
  return layer;
}

// What a policy filled its buffers with; every vector is of one KV head.
struct Scored {
  std::vector<std::vector<float>> mass, scores, lane_state;
};

// The reference backend, or any other, with one layer's keys in lanes of f32 entries, behind those of someone else.
class ScoredLayer {
 public:
  static constexpr int32_t kLayer = 3;
  static constexpr float kUntouched = -12345.0f;  // what the buffers hold before

  ScoredLayer(Backend& backend, const LayerInput& input) : backend_(backend), input_(input) {
    const CacheGeometry geometry{
        .layers = 1, .kv_heads = input.kv_heads, .head_dim = input.head_dim, .page_bytes = 64 * 5};
    auto cache = KvCache::create(backend, geometry, uint64_t{1} << 20);
    EXPECT_TRUE(cache.ok()) << cache.status();
    cache_ = *std::move(cache);
    const std::vector<int32_t> limits(static_cast<size_t>(input.kv_heads), input.tokens);
    for (SequenceId* opened : {&other_, &sequence_}) {
      auto id = cache_->open({.dtype = KvDtype::kF32, .lane_entries = limits});
      EXPECT_TRUE(id.ok()) << id.status();
      *opened = *id;
    }
    EXPECT_TRUE(cache_->append_slots(sequence_, 0, input.tokens).ok());
    const Tensor k = matrix(input.tokens, input.kv_heads * input.head_dim);
    backend.upload(k.view(), input.k.data());
    std::vector<int32_t> positions(static_cast<size_t>(input.tokens));
    std::iota(positions.begin(), positions.end(), 0);
    const test::BackendArray<RowSpan> span(backend, {{.first_row = 0, .rows = input.tokens, .first_lane = 0}});
    backend.write_kv(k.view(), k.view(), test::BackendArray<int32_t>(backend, positions).data(),
                     LayerLanes(*cache_, {sequence_}, 0, input.tokens).kv(), row_spans(span), input.kv_heads);
  }

  Scored score(const CachePolicy& policy) {
    const int32_t n = input_.tokens, state_floats = policy.lane_state_floats(input_.head_dim);
    std::vector<ObservationRow> rows = policy.observe(n);
    if (policy.observation() == Observation::kEveryRow) {
      for (int32_t row = 0; row < n; ++row) rows.push_back({row, row});
    }
    const Tensor q = matrix(std::max<size_t>(rows.size(), 1), input_.q_heads * input_.head_dim);
    for (size_t i = 0; i < rows.size(); ++i) {
      EXPECT_EQ(rows[i].position, rows[i].prompt_row);
      backend_.upload(q.view().slice_rows(static_cast<int64_t>(i), 1), input_.query(rows[i].prompt_row, 0).data());
    }
    // Wider than the prompt, as the engine's are.
    const Tensor lse = matrix(std::max<size_t>(rows.size(), 1), input_.q_heads), sums = matrix(input_.q_heads, n + 3),
                 mass = matrix(input_.kv_heads, n + 3), scores = matrix(input_.kv_heads, n + 3),
                 state = matrix(input_.kv_heads, std::max(state_floats, 1));
    const ScoreBuffers buffers{.lse = lse.view(),
                               .sums = sums.view().slice_cols(0, n),
                               .mass = mass.view().slice_cols(0, n),
                               .scores = scores.view().slice_cols(0, n),
                               .lane_state = state.view().slice_cols(0, state_floats)};
    const ObservedRows observed{.q = q.view(), .unseen = rows.empty() ? 0 : n - 1 - rows.front().position};
    const LayerView layer{.backend = &backend_,
                          .kv = LayerLanes(*cache_, {other_, sequence_}, 0).kv(),
                          .layer = kLayer,
                          .first_lane = input_.kv_heads,
                          .tokens = n,
                          .observed = {&observed, 1},
                          .q_heads = input_.q_heads,
                          .kv_heads = input_.kv_heads,
                          .scale = 1.0f / std::sqrt(static_cast<float>(input_.head_dim))};
    if (policy.observation() == Observation::kEveryRow) sum_every_row(layer, buffers);
    score_now(policy, layer, buffers);
    return {rows_of(buffers.mass), rows_of(buffers.scores), rows_of(buffers.lane_state)};
  }

 private:
  Tensor matrix(size_t rows, int32_t cols) {
    auto tensor = backend_.allocate(static_cast<int64_t>(rows), cols, DType::kF32);
    EXPECT_TRUE(tensor.ok());
    const std::vector<float> untouched(rows * static_cast<size_t>(cols), kUntouched);
    backend_.upload(tensor->view(), untouched.data());
    return *std::move(tensor);
  }

  // What the caller does while the layer is prefilled.
  void sum_every_row(const LayerView& layer, const ScoreBuffers& buffers) {
    layer.backend->fill(buffers.sums, 0);
    add_attention(layer, layer.observed.front(), buffers.lse, buffers.sums);
  }

  std::vector<std::vector<float>> rows_of(const TensorView& view) {
    std::vector<std::vector<float>> rows(static_cast<size_t>(view.rows),
                                         std::vector<float>(static_cast<size_t>(view.cols)));
    for (int64_t row = 0; row < view.rows && view.cols > 0; ++row) {
      backend_.fetch({rows[static_cast<size_t>(row)].data(), view.slice_rows(row, 1)});
    }
    return rows;
  }

  Backend& backend_;
  const LayerInput& input_;
  std::unique_ptr<KvCache> cache_;
  SequenceId other_ = nullptr, sequence_ = nullptr;
};

// The first `sinks` entries, the newest `window`, and the best of the others: score descending, then smaller position.
inline std::vector<int32_t> best_entries(const std::vector<float>& scores, int32_t budget, int32_t window,
                                         int32_t sinks) {
  const auto n = static_cast<int32_t>(scores.size());
  std::vector<int32_t> order(scores.size());
  std::iota(order.begin(), order.end(), 0);
  const auto rank = [&](int32_t slot) {
    const bool always = slot < sinks || slot >= n - window;
    return always ? std::numeric_limits<float>::infinity() : scores[static_cast<size_t>(slot)];
  };
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return rank(a) > rank(b); });
  order.resize(static_cast<size_t>(std::min(budget, n)));
  std::sort(order.begin(), order.end());
  return order;
}

// The share of a lane's mass that the kept entries carry.
inline double recall_of(const std::vector<float>& mass, const std::vector<int32_t>& kept) {
  double carried = 0;
  for (const int32_t slot : kept) carried += mass[static_cast<size_t>(slot)];
  return carried / std::accumulate(mass.begin(), mass.end(), 0.0);
}

}  // namespace pkv
