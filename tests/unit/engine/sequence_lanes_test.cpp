// The lanes of one sequence: what they hold and count, how they grow, and that everything is given back.
#include "server/engine/sequence_lanes.h"

#include <gtest/gtest.h>

#include <numeric>

#include "server/cache/step_buffer.h"
#include "server/policy/registry.h"
#include "tests/unit/engine/engine_fixture.h"

namespace pkv::test {
namespace {

class SequenceLanesTest : public testing::Test {
 protected:
  SequenceLanesTest() { make_cache(uint64_t{1} << 20); }

  void make_cache(uint64_t bytes) {
    const ModelShape& shape = tiny_.model->shape();
    auto cache = KvCache::create(
        *tiny_.backend,
        {.layers = shape.layers, .kv_heads = shape.kv_heads, .head_dim = shape.head_dim, .page_bytes = 256}, bytes);
    ASSERT_TRUE(cache.ok()) << cache.status();
    cache_ = *std::move(cache);
    auto scratch = CompressorScratch::create(*tiny_.backend, shape.q_heads, cache_->geometry(), 256);
    ASSERT_TRUE(scratch.ok());
    scratch_ = *std::move(scratch);
  }

  // Everything that opening lanes refers to.
  struct Terms {
    PolicySpec spec;
    std::unique_ptr<CachePolicy> policy;
    CachePlan plan;
    int32_t prompt_tokens = 0;
  };
  Terms terms(PolicySpec spec, int32_t prompt_tokens, int32_t max_tokens) {
    auto policy = make_policy(spec);
    EXPECT_TRUE(policy.ok()) << policy.status();
    auto plan = plan_cache({.policy = **policy,
                            .spec = spec,
                            .geometry = cache_->geometry(),
                            .q_heads = tiny_.model->shape().q_heads,
                            .prompt_tokens = prompt_tokens,
                            .max_tokens = max_tokens});
    EXPECT_TRUE(plan.ok()) << plan.status();
    return {spec, *std::move(policy), *std::move(plan), prompt_tokens};
  }
  std::unique_ptr<SequenceLanes> open(const Terms& terms) {
    auto lanes = SequenceLanes::open({.model = *tiny_.model,
                                      .cache = *cache_,
                                      .policy = *terms.policy,
                                      .spec = terms.spec,
                                      .plan = terms.plan,
                                      .prompt_tokens = terms.prompt_tokens});
    EXPECT_TRUE(lanes.ok()) << lanes.status();
    return *std::move(lanes);
  }

  // The newest of the prompt, as many as every lane keeps.
  void read_prompt(SequenceLanes& lanes, const Terms& terms) {
    const CacheGeometry& geometry = cache_->geometry();
    for (int32_t layer = 0; layer < geometry.layers; ++layer) {
      std::vector<int32_t> counts;
      for (int32_t head = 0; head < geometry.kv_heads; ++head) {
        const auto lane = static_cast<size_t>(layer * geometry.kv_heads + head);
        const int32_t kept = terms.plan.lane_budgets[lane];
        ASSERT_TRUE(cache_->append_slots(lanes.id(), layer, head, kept).ok());
        counts.push_back(kept);
        std::vector<int32_t> positions(static_cast<size_t>(kept));
        std::iota(positions.begin(), positions.end(), terms.prompt_tokens - kept);
        tiny_.backend->upload(scratch_->kept.view().slice_rows(head, 1).slice_cols(0, kept), positions.data());
      }
      if (lanes.evictor() == nullptr) continue;
      tiny_.backend->fill(scratch_->scores.view(), 0.0f);
      lanes.evictor()->set_layer(layer, {.tokens = terms.prompt_tokens,
                                         .counts = counts,
                                         .kept = scratch_->kept.view(),
                                         .scores = scratch_->scores.view(),
                                         .scored = terms.prompt_tokens});
    }
  }

  TinyModel tiny_ = make_tiny_model();
  std::unique_ptr<KvCache> cache_;
  std::unique_ptr<CompressorScratch> scratch_;
};

PolicySpec total(PolicySpec spec) {
  spec.budget.scope = BudgetScope::kTotal;
  return spec;
}

TEST_F(SequenceLanesTest, CountTheirStateAndGiveEverythingBack) {
  const Terms evicting = terms(total(policy(PolicyKind::kSnapKv, 20)), 40, 30);
  ASSERT_GT(evicting.plan.state_bytes, 0u);
  {
    const auto lanes = open(evicting);
    EXPECT_NE(lanes->evictor(), nullptr);
    EXPECT_EQ(lanes->state_bytes(), evicting.plan.state_bytes);
    EXPECT_EQ(lanes->bytes().auxiliary, evicting.plan.state_bytes);
    read_prompt(*lanes, evicting);
    EXPECT_GT(cache_->pool().live(), 0);
  }
  EXPECT_EQ(cache_->pool().live(), 0);
  EXPECT_EQ(cache_->total_bytes().auxiliary, 0u);
}

TEST_F(SequenceLanesTest, WithoutEvictionsEveryLaneGrows) {
  const Terms kept = terms(policy(PolicyKind::kSnapKv, 20), 40, 30);
  const auto lanes = open(kept);
  EXPECT_EQ(lanes->evictor(), nullptr);
  EXPECT_EQ(lanes->state_bytes(), 0u);
  read_prompt(*lanes, kept);
  for (int32_t token = 0; token < 5; ++token) {
    const auto angle = lanes->place_token(40 + token);
    ASSERT_TRUE(angle.ok());
    EXPECT_EQ(*angle, 40 + token);
    lanes->end_token();
  }
  EXPECT_EQ(cache_->length(lanes->id(), 0, 0), 25);
  EXPECT_EQ(lanes->evicted_while_generating(), 0u);
}

TEST_F(SequenceLanesTest, LanesGrowToTheirLimitsAndNoFurther) {
  const Terms evicting = terms(total(policy(PolicyKind::kStreamingLlm, 20)), 17, 30);
  const auto lanes = open(evicting);
  read_prompt(*lanes, evicting);
  const CacheGeometry& geometry = cache_->geometry();
  const auto all_lanes = static_cast<uint64_t>(geometry.layers * geometry.kv_heads);
  for (int32_t token = 0; token < 8; ++token) {
    ASSERT_TRUE(lanes->place_token(17 + token).ok());
    lanes->end_token();
    EXPECT_EQ(cache_->length(lanes->id(), geometry.layers - 1, 0), std::min(20, 18 + token));
    EXPECT_EQ(lanes->evicted_while_generating(), all_lanes * static_cast<uint64_t>(std::max(0, token - 2)));
  }
}

TEST_F(SequenceLanesTest, AStepWritesToTheSlotsThatWereMadeFree) {
  const Terms evicting = terms(total(policy(PolicyKind::kStreamingLlm, 20)), 19, 30);
  const auto lanes = open(evicting);
  read_prompt(*lanes, evicting);
  const CacheGeometry& geometry = cache_->geometry();
  auto buffer = StepBuffer::create(*cache_, {.rows = 1, .spans = 1, .layers = geometry.layers, .evicting = 1});
  ASSERT_TRUE(buffer.ok());
  int32_t position = 19;
  for (const int32_t slot : {19, 4, 5, 6}) {  // the lanes grow by one; then the oldest but four sinks
    ASSERT_TRUE(lanes->place_token(position++).ok());
    buffer->begin(Phase::kDecode, {.rows = 1, .spans = 1, .layers = geometry.layers, .evicting = 1}, 0);
    lanes->view_token(buffer->lanes(), buffer->layer_lanes());
    *buffer->evicting() = lanes->evictor()->evicting_row(0);
    *buffer->spans() = {.first_row = 0, .rows = 1, .first_lane = 0};
    const StepPlan plan = buffer->commit();
    tiny_.backend->choose_slots(plan.evicting_step(0, geometry.layers));
    std::vector<Lane> view(static_cast<size_t>(geometry.layers * geometry.kv_heads));
    const auto words = static_cast<int64_t>(view.size() * sizeof(Lane) / sizeof(int32_t));
    tiny_.backend->fetch({view.data(), {plan.cache.lanes, DType::kI32, 1, words, words}});
    for (const Lane& lane : view) {
      EXPECT_EQ(lane.write_slot, slot);
      EXPECT_EQ(lane.length, 20);
      EXPECT_EQ(lane.visible, 20);
    }
    lanes->end_token();
  }
}

TEST_F(SequenceLanesTest, CacheRelativePositionsGoOnFromThePrompt) {
  PolicySpec spec = total(policy(PolicyKind::kStreamingLlm, 20));
  spec.params.position_mode = PositionMode::kCacheRelative;
  const Terms relative = terms(spec, 40, 3000);
  const auto lanes = open(relative);
  read_prompt(*lanes, relative);
  const int32_t most = tiny_.model->shape().max_positions;
  int32_t last = 39;
  for (int32_t token = 0; token < most; ++token) {  // further than positions go
    const auto angle = lanes->place_token(40 + token);
    ASSERT_TRUE(angle.ok());
    ASSERT_LT(*angle, most);
    if (last == most - 1) {
      EXPECT_EQ(*angle, 19);  // as many keys come before
    } else {
      ASSERT_EQ(*angle, last + 1);
    }
    last = *angle;
    lanes->end_token();
  }
}

TEST_F(SequenceLanesTest, WithoutAPageATokenHasNoPlace) {
  const CacheGeometry geometry = cache_->geometry();
  const int32_t lane_count = geometry.layers * geometry.kv_heads;
  make_cache(uint64_t{256} * static_cast<uint64_t>(lane_count));  // one page for each lane
  const int32_t slots = geometry.layout(KvDtype::kF16).slots();
  const Terms kept = terms(policy(PolicyKind::kFull), slots, 2);
  const auto lanes = open(kept);
  read_prompt(*lanes, kept);
  EXPECT_EQ(lanes->place_token(slots).status().code(), absl::StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace pkv::test
