// What the host counts while tokens are generated, and what it tells the backend's operations.
#include "server/policy/evictor.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "kernels/check.h"
#include "kernels/status_macros.h"

namespace pkv {
namespace {

bool scores_at_intervals(const CachePolicy& policy) {
  return policy.decode_rule().scoring() == DecodeRule::Scoring::kAtIntervals;
}

int32_t longest_lane(const CachePlan& plan) {
  return *std::max_element(plan.lane_limits.begin(), plan.lane_limits.end());
}

// Of all lanes of a layer together.
int64_t entries_at_most(const CachePlan& plan, const CacheGeometry& geometry, int32_t layer) {
  if (plan.shares(layer)) return plan.shared_limits[static_cast<size_t>(layer)];
  const auto first = plan.lane_limits.begin() + std::ptrdiff_t{layer} * geometry.kv_heads;
  return std::accumulate(first, first + geometry.kv_heads, int64_t{0});
}

}  // namespace

TensorSet<Evictor> Evictor::tensors(const CachePolicy& policy, const CachePlan& plan, const Options& options) {
  const CacheGeometry& geometry = options.geometry;
  int64_t entries = plan.model_limit;
  for (int32_t layer = 0; layer < geometry.layers && !plan.shares_model(); ++layer) {
    entries += entries_at_most(plan, geometry, layer);
  }
  const auto lanes = static_cast<int64_t>(plan.lane_limits.size());
  const int64_t width = int64_t{options.q_heads} * geometry.head_dim;
  const int64_t window = scores_at_intervals(policy) ? plan.window_tokens : 0;
  return {{&Evictor::scores_, 1, entries},
          {&Evictor::positions_, 1, entries, DType::kI32},
          {&Evictor::states_, lanes, policy.lane_state_floats(geometry.head_dim)},
          {&Evictor::ring_, geometry.layers * window, width},
          {&Evictor::ordered_q_, window, width},
          {&Evictor::lse_, window, options.q_heads}};
}

uint64_t Evictor::state_bytes(const CachePolicy& policy, const CachePlan& plan, const Options& options) {
  return tensors(policy, plan, options).bytes();
}

uint64_t Evictor::scratch_bytes(const CachePolicy& policy, const CachePlan& plan, const Options& options) {
  if (!plan.evicts_while_generating || !scores_at_intervals(policy)) return 0;
  return CompressorScratch::bytes(options.q_heads, options.geometry, longest_lane(plan));
}

Evictor::Evictor(Backend& backend, const CachePolicy& policy, const CachePlan& plan, const Options& options)
    : backend_(backend),
      policy_(policy),
      rule_(policy.decode_rule()),
      options_(options),
      window_(plan.window_tokens),
      kept_spans_(plan.kept_spans),
      shares_model_(plan.shares_model()),
      due_(static_cast<size_t>(options.geometry.layers), false) {
  int64_t layer_first = 0;
  for (int32_t layer = 0; layer < options.geometry.layers; ++layer) {
    shares_.push_back(plan.shares(layer) || plan.shares_model());
    auto first = static_cast<int32_t>(layer_first);
    for (int32_t head = 0; head < options.geometry.kv_heads; ++head) {
      const int32_t limit = plan.lane_limits[lanes_.size()];
      lanes_.push_back({.first = first, .limit = limit});
      if (!shares_.back()) first += limit;
    }
    layer_first += entries_at_most(plan, options.geometry, layer);
  }
}

absl::StatusOr<std::unique_ptr<Evictor>> Evictor::create(Backend& backend, const CachePolicy& policy,
                                                         const CachePlan& plan, const Options& options) {
  PKV_CHECK(plan.evicts_while_generating, "nothing will be evicted");
  std::unique_ptr<Evictor> evictor(new Evictor(backend, policy, plan, options));
  PKV_RETURN_IF_ERROR(tensors(policy, plan, options).allocate(backend, *evictor));
  if (scores_at_intervals(policy)) {
    PKV_ASSIGN_OR_RETURN(evictor->scratch_,
                         CompressorScratch::create(backend, options.q_heads, options.geometry, longest_lane(plan)));
  }
  return evictor;
}

// ---- from the prompt

TensorView Evictor::ring(int32_t layer) const { return ring_.view().slice_rows(int64_t{layer} * window_, window_); }

TensorView Evictor::lane_states(int32_t layer) const {
  const int32_t heads = options_.geometry.kv_heads;
  return states_.view().slice_rows(int64_t{layer} * heads, heads);
}

void Evictor::set_layer(int32_t layer, const LayerCut& cut) {
  position_ = cut.tokens;
  if (cut.scored < cut.tokens) {
    backend_.fill(cut.scores.slice_cols(cut.scored, cut.tokens - cut.scored), kNoScore);
  }
  for (const TokenSpan& span : kept_spans_) {
    backend_.fill(cut.scores.slice_cols(span.begin, span.end - span.begin), kNeverEvicted);
  }
  int32_t first = lane(layer, 0).first;
  if (shares_model_ && layer > 0) {
    const LaneState& before = lane(layer - 1, options_.geometry.kv_heads - 1);
    first = before.first + before.limit;
  }
  for (int32_t head = 0; head < options_.geometry.kv_heads; ++head) {
    LaneState& set = lane(layer, head);
    set.length = cut.counts[static_cast<size_t>(head)];
    if (shares_[static_cast<size_t>(layer)]) {  // what it got is all that it may have
      set.first = first;
      set.limit = set.length;
      first += set.length;
    }
    PKV_CHECK(set.length <= set.limit, "more entries than the lane may ever have");
    set.scored = cut.scored == 0 ? 0 : set.length - (cut.tokens - cut.scored) - kept_before(cut.scored);
    const TensorView kept = cut.kept.slice_rows(head, 1).slice_cols(0, set.length);
    backend_.take_columns(cut.scores.slice_rows(head, 1), kept, scores_.view().slice_cols(set.first, set.length));
    backend_.copy(positions_.view().slice_cols(set.first, set.length), kept);
  }
}

// ---- what is counted

const Evictor::LaneState& Evictor::lane(int32_t layer, int32_t kv_head) const {
  return lanes_[static_cast<size_t>(layer) * static_cast<size_t>(options_.geometry.kv_heads) +
                static_cast<size_t>(kv_head)];
}

Evictor::LaneState& Evictor::lane(int32_t layer, int32_t kv_head) {
  return const_cast<LaneState&>(std::as_const(*this).lane(layer, kv_head));
}

int32_t Evictor::kept_before(int32_t position) const {
  int32_t kept = 0;
  for (const TokenSpan& span : kept_spans_) kept += std::clamp(position - span.begin, 0, span.end - span.begin);
  return kept;
}

// At intervals, and where a full lane has no entry with a score left to give up.
bool Evictor::is_due(int32_t layer) const {
  if (rule_.scoring() != DecodeRule::Scoring::kAtIntervals) return false;
  if (tokens_ > 0 && tokens_ % options_.interval_tokens == 0) return true;
  for (int32_t head = 0; head < options_.geometry.kv_heads; ++head) {
    const LaneState& state = lane(layer, head);
    if (state.length == state.limit && state.scored == 0) return true;
  }
  return false;
}

bool Evictor::needs_refresh() {
  if (!std::exchange(looked_, true)) begin_refresh();
  return refresh_.has_value();
}

void Evictor::begin_refresh() {
  for (int32_t layer = 0; layer < options_.geometry.layers; ++layer) {
    const bool due = is_due(layer);
    due_[static_cast<size_t>(layer)] = due;
    for (int32_t head = 0; due && head < options_.geometry.kv_heads; ++head) {
      LaneState& state = lane(layer, head);
      state.grows = false;
      // All but the newest W, which the lane has in full, get a score; sinks and pins among them never go.
      if (state.length > window_) state.scored = state.length - window_ - kept_before(position_ - window_);
    }
  }
  refresh_from(0, 0);
}

void Evictor::begin_token(int32_t position) {
  PKV_CHECK(position == position_ && !needs_refresh(), "another token than the next one, or before its refresh");
  for (LaneState& state : lanes_) {
    state.grows = state.length < state.limit;
    if (state.grows) {
      ++state.length;
    } else {
      ++evicted_;
      state.scored = std::max(0, state.scored - 1);
    }
  }
}

void Evictor::end_token() {
  ++tokens_;
  ++position_;
  looked_ = false;
}

void Evictor::mark(int32_t layer, std::span<Lane> lanes) const {
  for (int32_t head = 0; head < options_.geometry.kv_heads; ++head) {
    const LaneState& state = lane(layer, head);
    Lane& marked = lanes[static_cast<size_t>(head)];
    PKV_CHECK(marked.length == state.length, "the cache's lane has another length");
    marked.first_score = state.first;
    marked.write_slot = state.grows ? state.length - 1 : kChosenByEviction;
  }
}

EvictingRow Evictor::evicting_row(int32_t row) const {
  return {.scores = scores_.view().f32(),
          .positions = positions_.view().i32(),
          .key_sums = states_.view().f32(),
          .queries = rule_.scoring() == DecodeRule::Scoring::kAtIntervals ? ring_.view().f32() : nullptr,
          .seed = rule_.seed,
          .row = row,
          .position = position_,
          .window = std::max(1, window_),
          .rank = rule_.rank,
          .new_score = rule_.new_score};
}

}  // namespace pkv
