// Plays the engine for tests: one sequence of a cache whose entries go while it generates, token by token.
#pragma once

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "server/cache/layer_lanes.h"
#include "server/policy/evictor.h"
#include "tests/unit/policy/policy_specs.h"

namespace pkv {

// What a prompt's cut left in one lane, in slot order.
struct LaneStart {
  std::vector<int32_t> positions;
  std::vector<float> scores;  // NaN: none yet
  std::vector<float> keys;    // [entries, d]
  std::vector<float> state;   // [lane_state_floats]
};

// What the layers of a model would have computed for one token; per layer.
struct TokenRows {
  std::vector<std::vector<float>> q;  // [Hq * d]
  std::vector<std::vector<float>> k;  // [Hkv * d]
};

class EvictingSequence {
 public:
  // `planned` must outlive this. Entries are f32.
  EvictingSequence(Backend& backend, const Planned& planned, const EvictorOptions& options)
      : backend_(backend), options_(options) {
    auto cache = KvCache::create(backend, options.geometry, uint64_t{1} << 20);
    auto scratch = CompressorScratch::create(backend, options.q_heads, options.geometry, 512);
    auto evictor = Evictor::create(backend, *planned.policy, planned.plan, options);
    EXPECT_TRUE(cache.ok() && scratch.ok() && evictor.ok());
    cache_ = *std::move(cache);
    scratch_ = *std::move(scratch);
    evictor_ = *std::move(evictor);
    sequence_ = cache_->open(KvDtype::kF32);
  }

  Evictor& evictor() { return *evictor_; }
  // Ascending.
  std::vector<int32_t> positions(int32_t layer, int32_t kv_head) const {
    std::vector<int32_t> held = cache_->positions(sequence_, layer, kv_head);
    std::sort(held.begin(), held.end());
    return held;
  }

  // The layer's lanes [kv_heads] after the cut.
  void start_layer(int32_t layer, const std::vector<LaneStart>& lanes) {
    for (int32_t head = 0; head < options_.geometry.kv_heads; ++head) {
      const LaneStart& lane = lanes[static_cast<size_t>(head)];
      const auto count = static_cast<int32_t>(lane.positions.size());
      ASSERT_TRUE(cache_->append_slots(sequence_, layer, head, count).ok());
      LayerLanes view(*cache_, {sequence_}, layer);
      view.lanes()[static_cast<size_t>(head)].write_slot = 0;
      const Tensor keys = upload(lane.keys, count);
      const RowSpan span{.first_row = 0, .rows = count, .first_lane = head};
      backend_.write_kv(keys.view(), keys.view(), lane.positions.data(), view.kv(), {&span, 1}, 1);
      evictor_->set_lane(layer, head, lane.positions, lane.scores, lane.state);
    }
  }

  // Where the queries of the prompt's newest rows go; [W][Hq * d], oldest first.
  void set_newest_queries(int32_t layer, int32_t prompt_tokens, const std::vector<std::vector<float>>& rows) {
    const TensorView ring = evictor_->ring(layer);
    auto position = prompt_tokens - static_cast<int32_t>(rows.size());
    for (const std::vector<float>& row : rows) {
      backend_.upload(ring.slice_rows(position++ % ring.rows, 1), row.data());
    }
  }

  // Writes the token at `position`, whatever has to go for it.
  void step(int32_t position, const TokenRows& token) {
    const CacheGeometry& geometry = options_.geometry;
    const auto heads = static_cast<size_t>(geometry.kv_heads);
    std::vector<int32_t> slots(static_cast<size_t>(geometry.layers) * heads);
    const auto of_layer = [&](int32_t layer) {
      return std::span(slots).subspan(static_cast<size_t>(layer) * heads, heads);
    };
    for (int32_t layer = 0; layer < geometry.layers; ++layer) {
      evictor_->choose_slots(*cache_, sequence_, layer, position, *scratch_, of_layer(layer));
      ASSERT_TRUE(cache_->place_token(sequence_, layer, of_layer(layer)).ok());
    }
    for (int32_t layer = 0; layer < geometry.layers; ++layer) {
      std::vector<Lane> lanes;
      std::vector<int32_t> page_ids;
      cache_->view_token(sequence_, layer, of_layer(layer), lanes, page_ids);
      KvView kv = cache_->base_view();
      kv.lanes = lanes.data();
      kv.lane_count = static_cast<int32_t>(lanes.size());
      kv.page_ids = page_ids.data();
      const auto at = static_cast<size_t>(layer);
      const Tensor q = upload(token.q[at], 1), k = upload(token.k[at], 1);
      const RowSpan span{.first_row = 0, .rows = 1, .first_lane = 0};
      backend_.write_kv(k.view(), k.view(), &position, kv, {&span, 1}, geometry.kv_heads);
      evictor_->observe(layer, {.q = q.view(), .k = k.view(), .kv = kv, .first_lane = 0}, *scratch_);
    }
    evictor_->end_token();
  }

 private:
  Tensor upload(const std::vector<float>& values, int32_t rows) {
    auto tensor = backend_.allocate(rows, static_cast<int64_t>(values.size()) / rows, DType::kF32);
    EXPECT_TRUE(tensor.ok());
    backend_.upload(tensor->view(), values.data());
    return *std::move(tensor);
  }

  Backend& backend_;
  EvictorOptions options_;
  std::unique_ptr<KvCache> cache_;
  std::unique_ptr<CompressorScratch> scratch_;
  std::unique_ptr<Evictor> evictor_;
  SequenceId sequence_ = 0;
};

}  // namespace pkv
