// Plays the engine for tests: one sequence of a cache whose entries go while it generates, token by token.
#pragma once

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "server/cache/step_buffer.h"
#include "server/policy/evictor.h"
#include "tests/support/backend_array.h"
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
  EvictingSequence(Backend& backend, const Planned& planned, const Evictor::Options& options)
      : backend_(backend), policy_(*planned.policy), plan_(planned.plan), options_(options) {
    auto cache = KvCache::create(backend, options.geometry, uint64_t{1} << 20);
    auto scratch = CompressorScratch::create(backend, options.q_heads, options.geometry, 512);
    auto evictor = Evictor::create(backend, *planned.policy, planned.plan, options);
    EXPECT_TRUE(cache.ok() && scratch.ok() && evictor.ok());
    cache_ = *std::move(cache);
    scratch_ = *std::move(scratch);
    evictor_ = *std::move(evictor);
    auto step = StepBuffer::create(*cache_, {.rows = 1, .spans = 1, .layers = options.geometry.layers, .evicting = 1});
    EXPECT_TRUE(step.ok());
    step_.emplace(*std::move(step));
    sequence_ = *cache_->open({.dtype = KvDtype::kF32, .lane_entries = planned.plan.lane_limits});
  }

  Evictor& evictor() { return *evictor_; }
  // Ascending.
  std::vector<int32_t> positions(int32_t layer, int32_t kv_head) const {
    std::vector<int32_t> held = cache_->positions(sequence_, layer, kv_head);
    std::sort(held.begin(), held.end());
    return held;
  }

  // The layer's lanes [kv_heads] after the cut of a prompt of `tokens`.
  void start_layer(int32_t layer, int32_t tokens, const std::vector<LaneStart>& lanes) {
    const int32_t heads = options_.geometry.kv_heads;
    const TensorView scores = scratch_->scores.view(), kept = scratch_->kept.view();
    std::vector<int32_t> counts;
    bool scored = false;
    for (int32_t head = 0; head < heads; ++head) {
      const LaneStart& lane = lanes[static_cast<size_t>(head)];
      counts.push_back(static_cast<int32_t>(lane.positions.size()));
      ASSERT_TRUE(cache_->append_slots(sequence_, layer, head, counts.back()).ok());
      if (plan_.shares(layer)) cache_->set_limit(sequence_, layer, head, counts.back());
      StepBuffer& buffer = cache_->between_steps();
      buffer.begin(Phase::kPrefill, {.spans = 1}, layer);
      buffer.spans()[0] = {.first_row = 0, .rows = counts.back(), .first_lane = head};
      cache_->view(sequence_, layer, 0, buffer.lanes());
      buffer.lanes()[head].write_slot = 0;
      const StepPlan plan = buffer.commit();
      const Tensor keys = upload(lane.keys, counts.back());
      backend_.write_kv(keys.view(), keys.view(), test::BackendArray<int32_t>(backend_, lane.positions).data(),
                        plan.cache, plan.spans, 1);
      std::vector<float> columns(static_cast<size_t>(tokens));
      for (size_t i = 0; i < lane.positions.size(); ++i) {
        columns[static_cast<size_t>(lane.positions[i])] = lane.scores[i];
        scored |= !std::isnan(lane.scores[i]);
      }
      backend_.upload(scores.slice_rows(head, 1).slice_cols(0, tokens), columns.data());
      backend_.upload(kept.slice_rows(head, 1).slice_cols(0, counts.back()), lane.positions.data());
      if (!lane.state.empty()) {
        backend_.upload(evictor_->lane_states(layer).slice_rows(head, 1), lane.state.data());
      }
    }
    const bool window_scored = policy_.decode_rule().scoring() != DecodeRule::Scoring::kAtIntervals;
    const int32_t columns = window_scored ? tokens : std::max(0, tokens - plan_.window_tokens);
    evictor_->set_layer(
        layer, {.tokens = tokens, .counts = counts, .kept = kept, .scores = scores, .scored = scored ? columns : 0});
  }

  // Where the queries of the prompt's newest rows go; [W][Hq * d], oldest first.
  void set_newest_queries(int32_t layer, int32_t prompt_tokens, const std::vector<std::vector<float>>& rows) {
    const TensorView ring = evictor_->ring(layer);
    auto position = prompt_tokens - static_cast<int32_t>(rows.size());
    for (const std::vector<float>& row : rows) {
      backend_.upload(ring.slice_rows(position++ % ring.rows, 1), row.data());
    }
  }

  // A unit of what the next token waits for.
  int64_t refresh(int64_t most) { return evictor_->refresh(*cache_, sequence_, most); }

  // Writes the token at `position`, whatever has to go for it.
  void step(int32_t position, const TokenRows& token) {
    const CacheGeometry& geometry = options_.geometry;
    while (evictor_->needs_refresh()) refresh(options_.most_step_work);
    evictor_->begin_token(position);
    ASSERT_TRUE(cache_->place_token(sequence_).ok());
    step_->begin(Phase::kDecode, {.rows = 1, .spans = 1, .layers = geometry.layers, .evicting = 1}, 0);
    *step_->positions() = position;
    *step_->spans() = {.first_row = 0, .rows = 1, .first_lane = 0};
    *step_->evicting() = evictor_->evicting_row(0);
    cache_->view_token(sequence_, step_->lanes(), step_->layer_lanes());
    for (int32_t layer = 0; layer < geometry.layers; ++layer) {
      evictor_->mark(layer, {step_->lanes() + layer * step_->layer_lanes(), static_cast<size_t>(step_->layer_lanes())});
    }
    const StepPlan plan = step_->commit();
    backend_.choose_slots(plan.evicting_step(0, geometry.layers));
    for (int32_t layer = 0; layer < geometry.layers; ++layer) {
      const KvView kv = plan.view(layer);
      const auto at = static_cast<size_t>(layer);
      const Tensor q = upload(token.q[at], 1), k = upload(token.k[at], 1);
      backend_.write_kv(k.view(), k.view(), plan.positions, kv, plan.spans, geometry.kv_heads);
      const EvictingStep step = plan.evicting_step(layer, 1);
      backend_.score_new_entries(step, k.view());
      backend_.keep_queries(step, q.view());
      backend_.add_attention(step, {.q = q.view(),
                                    .kv = kv,
                                    .q_heads = options_.q_heads,
                                    .scale = attention_scale(geometry.head_dim),
                                    .sums = scratch_->sums.view(),
                                    .mass = scratch_->mass.view()});
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
  const CachePolicy& policy_;
  const CachePlan& plan_;
  Evictor::Options options_;
  std::unique_ptr<KvCache> cache_;
  std::unique_ptr<CompressorScratch> scratch_;
  std::unique_ptr<Evictor> evictor_;
  std::optional<StepBuffer> step_;
  SequenceId sequence_ = nullptr;
};

}  // namespace pkv
