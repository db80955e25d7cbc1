// The operations that put a sequence's entries in order and score them.
#include <algorithm>

#include "server/policy/evictor.h"

namespace pkv {

Evictor::LaneRun Evictor::lane_run(int32_t layer, int32_t first_head) const {
  LaneRun run{.first_head = first_head};
  const auto is_like_first = [&](int32_t head) {
    const LaneState &first = lane(layer, first_head), &other = lane(layer, head);
    return other.length == first.length && other.grows == first.grows;
  };
  while (first_head + run.heads < options_.geometry.kv_heads && is_like_first(first_head + run.heads)) ++run.heads;
  return run;
}

ScoredLanes Evictor::scored_lanes(const KvView& kv, int32_t first_lane, const LaneRun& run) const {
  return {.lanes = kv.lanes + first_lane + run.first_head,
          .count = run.heads,
          .scores = scores_.view().f32(),
          .positions = positions_.view().i32()};
}

// The columns of a run's query heads, each `width` wide.
TensorView Evictor::query_heads(const TensorView& tensor, const LaneRun& run, int32_t width) const {
  const int64_t group = options_.q_heads / options_.geometry.kv_heads * width;
  return tensor.slice_cols(run.first_head * group, run.heads * group);
}

LayerView Evictor::run_view(const KvView& kv, int32_t first_lane, const LaneRun& run, const ObservedRows& rows) const {
  return {.backend = &backend_,
          .kv = kv,
          .first_lane = first_lane + run.first_head,
          .observed = {&rows, 1},
          .q_heads = options_.q_heads / options_.geometry.kv_heads * run.heads,
          .kv_heads = run.heads,
          .scale = attention_scale(options_.geometry.head_dim)};
}

// Entries into the order of their positions, as scores are made for; their slots are no promise to anybody.
void Evictor::order_lanes(const KvView& kv, int32_t first_lane, CompressorScratch& scratch) {
  const int32_t heads = options_.geometry.kv_heads;
  const TensorView order = scratch.kept.view(), counts = scratch.counts.view();
  backend_.order_entries(scored_lanes(kv, first_lane, {.first_head = 0, .heads = heads}), order, counts);
  backend_.gather(kv, first_lane, order, counts, first_lane);
}

// The ring's rows, oldest first, in at most two pieces.
TensorView Evictor::newest_queries(int32_t layer) {
  const int32_t rows = std::min(window_, position_);
  const int32_t oldest = (position_ - rows) % window_;
  const int32_t unbroken = std::min(rows, window_ - oldest);
  backend_.copy(ordered_q_.view().slice_rows(0, unbroken), ring(layer).slice_rows(oldest, unbroken));
  if (unbroken < rows) {
    backend_.copy(ordered_q_.view().slice_rows(unbroken, rows - unbroken), ring(layer).slice_rows(0, rows - unbroken));
  }
  return ordered_q_.view().slice_rows(0, rows);
}

void Evictor::refresh(int32_t layer, const KvView& kv, int32_t first_lane, CompressorScratch& scratch) {
  if (!due_[static_cast<size_t>(layer)]) return;
  order_lanes(kv, first_lane, scratch);
  const TensorView queries = newest_queries(layer);
  for (LaneRun run = lane_run(layer, 0); run.heads > 0; run = lane_run(layer, run.first_head + run.heads)) {
    const LaneState& like = lane(layer, run.first_head);
    const int32_t entries = like.entries_before();
    if (entries <= window_) continue;
    // Each query sees the entries up to its own, which are the newest of the lane but for the token's own slot.
    const ObservedRows newest{.q = query_heads(queries, run, options_.geometry.head_dim),
                              .unseen = static_cast<int32_t>(queries.rows) - 1 + (like.grows ? 1 : 0)};
    LayerView view = run_view(kv, first_lane, run, newest);
    view.layer = layer;
    view.tokens = entries;
    if (policy_.weighs_values()) {
      const int64_t layer_rows = int64_t{options_.q_heads} * options_.geometry.head_dim;
      const int64_t run_first = layer_rows / options_.geometry.kv_heads * run.first_head;
      view.value_factors = options_.value_factors.slice_rows(layer * layer_rows + run_first,
                                                             int64_t{view.q_heads} * options_.geometry.head_dim);
    }
    const TensorView scores = scratch.scores.view().slice_rows(0, run.heads).slice_cols(0, entries);
    score_now(policy_, view,
              {.lse = query_heads(lse_.view().slice_rows(0, queries.rows), run, 1),
               .sums = scratch.sums.view().slice_rows(0, view.q_heads).slice_cols(0, entries),
               .mass = scratch.mass.view().slice_rows(0, run.heads).slice_cols(0, entries),
               .scores = scores,
               .squares = scratch.squares.view().slice_rows(0, view.q_heads).slice_cols(0, entries),
               .value_norms = scratch.value_norms.view().slice_rows(0, view.q_heads).slice_cols(0, entries),
               .other_scores = scratch.other_scores.view().slice_rows(0, run.heads).slice_cols(0, entries)});
    backend_.set_scores(scored_lanes(kv, first_lane, run), scores, window_);
  }
}

}  // namespace pkv
