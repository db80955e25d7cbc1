// Scores that are made anew between two tokens: entries into order, and then as a prompt's are scored, in steps, so
// that others have the backend between them.
#include <algorithm>

#include "kernels/check.h"
#include "server/cache/step_buffer.h"
#include "server/policy/evictor.h"

namespace pkv {

Evictor::LaneRun Evictor::lane_run(int32_t layer, int32_t first_head) const {
  LaneRun run{.first_head = first_head};
  const auto is_like_first = [&](int32_t head) { return lane(layer, head).length == lane(layer, first_head).length; };
  while (first_head + run.heads < options_.geometry.kv_heads && is_like_first(first_head + run.heads)) ++run.heads;
  return run;
}

ScoredLanes Evictor::scored_lanes(const KvView& kv, const LaneRun& run) const {
  return {.lanes = kv.lanes + run.first_head,
          .count = run.heads,
          .scores = scores_.view().f32(),
          .positions = positions_.view().i32()};
}

// The columns of a run's query heads, each `width` wide.
TensorView Evictor::query_heads(const TensorView& tensor, const LaneRun& run, int32_t width) const {
  const int64_t group = options_.q_heads / options_.geometry.kv_heads * width;
  return tensor.slice_cols(run.first_head * group, run.heads * group);
}

LayerView Evictor::run_view(const LaneRun& run, const ObservedRows& rows) const {
  return {.backend = &backend_,
          .kv = {.head_dim = options_.geometry.head_dim},
          .first_lane = run.first_head,
          .observed = {&rows, 1},
          .q_heads = options_.q_heads / options_.geometry.kv_heads * run.heads,
          .kv_heads = run.heads,
          .scale = attention_scale(options_.geometry.head_dim)};
}

int64_t Evictor::refresh(KvCache& cache, SequenceId sequence, int64_t most) {
  PKV_CHECK(needs_refresh(), "there are no scores to be made anew");
  const CacheGeometry& geometry = options_.geometry;
  StepBuffer& buffer = cache.between_steps();
  buffer.begin(Phase::kDecode, {.spans = 1, .layers = geometry.layers}, 0);
  buffer.spans()[0] = {};
  cache.view_token(sequence, buffer.lanes(), buffer.layer_lanes());
  for (int32_t layer = refresh_->view.layer; layer < geometry.layers; ++layer) {
    if (!due_[static_cast<size_t>(layer)]) continue;
    mark(layer, {buffer.lanes() + layer * buffer.layer_lanes(), static_cast<size_t>(geometry.kv_heads)});
  }
  const StepPlan plan = buffer.commit();
  int64_t work = 0;
  while (refresh_ && (work == 0 || work + refresh_->steps.next_work() <= most)) {
    LayerView& view = refresh_->view;
    view.kv = plan.view(view.layer);
    work += refresh_->steps.next_work();
    refresh_->steps.run_next(view);
    if (refresh_->steps.done()) refresh_from(view.layer, refresh_->run.first_head + refresh_->run.heads);
  }
  return work;
}

void Evictor::refresh_from(int32_t layer, int32_t first_head) {
  for (; layer < options_.geometry.layers; ++layer, first_head = 0) {
    if (!due_[static_cast<size_t>(layer)]) continue;
    for (LaneRun run = lane_run(layer, first_head); run.heads > 0; run = lane_run(layer, run.first_head + run.heads)) {
      Refresh& refresh = refresh_.emplace(Refresh{.run = run, .steps = ScoreSteps(options_.most_step_work)});
      refresh.view = run_view(run, refresh.newest);
      refresh.view.layer = layer;
      refresh.view.tokens = lane(layer, run.first_head).length;
      list_steps(refresh);
      if (!refresh.steps.done()) return;
    }
  }
  refresh_.reset();
}

void Evictor::list_steps(Refresh& refresh) {
  LayerView& view = refresh.view;
  const LaneRun& run = refresh.run;
  const int32_t layer = view.layer, entries = view.tokens;
  const TensorView queries = ordered_q_.view().slice_rows(0, std::min(window_, position_));
  if (run.first_head == 0) {  // for the whole layer
    refresh.steps.add(moving_work(layer), [this, layer](const LayerView& now) {
      order_lanes(now.kv);
      order_queries(layer);
    });
  }
  if (entries <= window_) return;
  // Each query sees the entries up to its own, which are the newest of the lane.
  refresh.newest = {.q = query_heads(queries, run, options_.geometry.head_dim),
                    .unseen = static_cast<int32_t>(queries.rows) - 1};
  if (policy_.weighs_values()) {
    const int64_t layer_rows = int64_t{options_.q_heads} * options_.geometry.head_dim;
    const int64_t run_first = layer_rows / options_.geometry.kv_heads * run.first_head;
    view.value_factors = options_.value_factors.slice_rows(layer * layer_rows + run_first,
                                                           int64_t{view.q_heads} * options_.geometry.head_dim);
  }
  const ScoreBuffers buffers = score_buffers(run, entries);
  policy_.score(view, buffers, refresh.steps);
  refresh.steps.add(view.entries_work(), [this, run, scores = buffers.scores](const LayerView& now) {
    backend_.set_scores(scored_lanes(now.kv, run), scores, window_);
  });
}

// Every number of a layer's entries is touched a few times.
int64_t Evictor::moving_work(int32_t layer) const {
  int64_t entries = 0;
  for (int32_t head = 0; head < options_.geometry.kv_heads; ++head) entries += lane(layer, head).length;
  return 8 * entries * options_.geometry.head_dim;
}

ScoreBuffers Evictor::score_buffers(const LaneRun& run, int32_t entries) const {
  const int32_t q_heads = options_.q_heads / options_.geometry.kv_heads * run.heads;
  const auto part = [&](const Tensor& tensor, int32_t rows) {
    return tensor.view().slice_rows(0, rows).slice_cols(0, entries);
  };
  return {.lse = query_heads(lse_.view(), run, 1),
          .sums = part(scratch_->sums, q_heads),
          .mass = part(scratch_->mass, run.heads),
          .scores = part(scratch_->scores, run.heads),
          .squares = part(scratch_->squares, q_heads),
          .value_norms = part(scratch_->value_norms, q_heads),
          .other_scores = part(scratch_->other_scores, run.heads)};
}

// Entries into the order of their positions, as scores are made for; their slots are no promise to anybody.
void Evictor::order_lanes(const KvView& kv) {
  const TensorView order = scratch_->kept.view(), counts = scratch_->counts.view();
  backend_.order_entries(scored_lanes(kv, {.first_head = 0, .heads = options_.geometry.kv_heads}), order, counts);
  backend_.gather(kv, 0, order, counts, 0);
}

// The ring's rows, oldest first, in at most two pieces.
void Evictor::order_queries(int32_t layer) {
  const int32_t rows = std::min(window_, position_);
  const int32_t oldest = (position_ - rows) % window_;
  const int32_t unbroken = std::min(rows, window_ - oldest);
  backend_.copy(ordered_q_.view().slice_rows(0, unbroken), ring(layer).slice_rows(oldest, unbroken));
  if (unbroken < rows) {
    backend_.copy(ordered_q_.view().slice_rows(unbroken, rows - unbroken), ring(layer).slice_rows(0, rows - unbroken));
  }
}

}  // namespace pkv
