// Scores and positions of every entry, and which of them goes next.
#include "server/policy/evictor.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

#include "kernels/check.h"
#include "kernels/status_macros.h"
#include "server/cache/layer_lanes.h"
#include "server/policy/observed_attention.h"

namespace pkv {
namespace {

constexpr float kUnscored = std::numeric_limits<float>::quiet_NaN();
constexpr float kNever = std::numeric_limits<float>::infinity();  // of sinks and pins

// Rows of queries that are kept per layer.
int32_t ring_rows(const CachePolicy& policy, const CachePlan& plan) {
  return policy.decode_scoring() == DecodeScoring::kAtIntervals ? plan.window_tokens : 0;
}

int32_t lse_rows(const CachePolicy& policy, const CachePlan& plan) {
  return policy.decode_scoring() == DecodeScoring::kEveryStep ? 1 : ring_rows(policy, plan);
}

bool is_in(std::span<const TokenSpan> spans, int32_t position) {
  return std::any_of(spans.begin(), spans.end(),
                     [&](const TokenSpan& span) { return position >= span.begin && position < span.end; });
}

}  // namespace

uint64_t Evictor::state_bytes(const CachePolicy& policy, const CachePlan& plan, const EvictorOptions& options) {
  uint64_t entries = 0;
  for (const int32_t limit : plan.lane_limits) entries += static_cast<uint64_t>(limit);
  const auto heads = static_cast<uint64_t>(options.q_heads);
  const uint64_t width = heads * static_cast<uint64_t>(options.geometry.head_dim);
  const auto rows = static_cast<uint64_t>(ring_rows(policy, plan));
  const uint64_t state =
      plan.lane_limits.size() * static_cast<uint64_t>(policy.lane_state_floats(options.geometry.head_dim));
  const uint64_t floats = rows * width * static_cast<uint64_t>(options.geometry.layers + 1) +
                          static_cast<uint64_t>(lse_rows(policy, plan)) * heads + state;
  return entries * (sizeof(float) + sizeof(int32_t)) + floats * sizeof(float);
}

Evictor::Evictor(Backend& backend, const CachePolicy& policy, const CachePlan& plan, const EvictorOptions& options)
    : backend_(backend),
      policy_(policy),
      options_(options),
      window_(plan.window_tokens),
      kept_spans_(plan.kept_spans),
      lanes_(plan.lane_limits.size()) {
  for (size_t i = 0; i < lanes_.size(); ++i) {
    lanes_[i].limit = plan.lane_limits[i];
    lanes_[i].scores.reserve(static_cast<size_t>(plan.lane_limits[i]));
    lanes_[i].positions.reserve(static_cast<size_t>(plan.lane_limits[i]));
    lanes_[i].state.resize(static_cast<size_t>(policy.lane_state_floats(options.geometry.head_dim)));
  }
}

absl::StatusOr<std::unique_ptr<Evictor>> Evictor::create(Backend& backend, const CachePolicy& policy,
                                                         const CachePlan& plan, const EvictorOptions& options) {
  PKV_CHECK(plan.evicts_while_generating, "nothing will be evicted");
  std::unique_ptr<Evictor> evictor(new Evictor(backend, policy, plan, options));
  const int64_t rows = ring_rows(policy, plan);
  const int64_t width = int64_t{options.q_heads} * options.geometry.head_dim;
  const struct {
    Tensor& tensor;
    int64_t rows, cols;
  } wanted[] = {{evictor->ring_, rows * options.geometry.layers, width},
                {evictor->ordered_q_, rows, width},
                {evictor->lse_, lse_rows(policy, plan), options.q_heads}};
  for (const auto& [tensor, count, cols] : wanted) {
    if (count == 0) continue;
    PKV_ASSIGN_OR_RETURN(tensor, backend.allocate(count, cols, DType::kF32));
  }
  return evictor;
}

TensorView Evictor::ring(int32_t layer) const { return ring_.view().slice_rows(int64_t{layer} * window_, window_); }

void Evictor::set_lane(int32_t layer, int32_t kv_head, std::span<const int32_t> positions,
                       std::span<const float> scores, std::span<const float> state) {
  LaneState& set = lane(layer, kv_head);
  PKV_CHECK(positions.size() == scores.size() && state.size() == set.state.size(), "one score for each entry");
  PKV_CHECK(positions.size() <= static_cast<size_t>(set.limit), "more entries than the lane may ever have");
  set.positions.assign(positions.begin(), positions.end());
  set.scores.assign(scores.begin(), scores.end());
  for (size_t slot = 0; slot < positions.size(); ++slot) {
    if (is_in(kept_spans_, positions[slot])) set.scores[slot] = kNever;
  }
  std::copy(state.begin(), state.end(), set.state.begin());
}

Evictor::LaneState& Evictor::lane(int32_t layer, int32_t kv_head) {
  return lanes_[static_cast<size_t>(layer) * static_cast<size_t>(options_.geometry.kv_heads) +
                static_cast<size_t>(kv_head)];
}

// The newest W count the token that is to be placed at `position`.
bool Evictor::is_candidate(const LaneState& lane, size_t slot, int32_t position) const {
  return lane.positions[slot] <= position - std::max(window_, 1) && lane.scores[slot] != kNever;
}

bool Evictor::lacks_scored_candidate(const LaneState& lane, int32_t position) const {
  for (size_t slot = 0; slot < lane.scores.size(); ++slot) {
    if (is_candidate(lane, slot, position) && !std::isnan(lane.scores[slot])) return false;
  }
  return true;
}

int32_t Evictor::worst_slot(const LaneState& lane, int32_t position) const {
  int32_t worst = -1, oldest = -1;
  float worst_rank = 0;
  for (size_t slot = 0; slot < lane.scores.size(); ++slot) {
    if (!is_candidate(lane, slot, position)) continue;
    const int32_t at = lane.positions[slot];
    if (oldest < 0 || at < lane.positions[static_cast<size_t>(oldest)]) oldest = static_cast<int32_t>(slot);
    if (std::isnan(lane.scores[slot])) continue;
    const float rank = policy_.decode_rank(lane.scores[slot], position - at);
    const bool worse =
        worst < 0 || rank < worst_rank || (rank == worst_rank && at > lane.positions[static_cast<size_t>(worst)]);
    if (!worse) continue;
    worst = static_cast<int32_t>(slot);
    worst_rank = rank;
  }
  const int32_t chosen = worst >= 0 ? worst : oldest;
  PKV_CHECK(chosen >= 0, "a full lane without an entry that may go");
  return chosen;
}

void Evictor::choose_slots(KvCache& cache, SequenceId sequence, int32_t layer, int32_t position,
                           CompressorScratch& scratch, std::span<int32_t> slots) {
  const int32_t heads = options_.geometry.kv_heads;
  const auto is_full = [](const LaneState& lane) { return static_cast<int32_t>(lane.positions.size()) == lane.limit; };
  if (policy_.decode_scoring() == DecodeScoring::kAtIntervals) {
    bool due = tokens_ > 0 && tokens_ % options_.interval_tokens == 0;
    for (int32_t head = 0; head < heads && !due; ++head) {
      due = is_full(lane(layer, head)) && lacks_scored_candidate(lane(layer, head), position);
    }
    if (due) refresh(cache, sequence, layer, position, scratch);
  }
  const float first_score = policy_.decode_scoring() == DecodeScoring::kEveryStep ? 0.0f : kUnscored;
  for (int32_t head = 0; head < heads; ++head) {
    LaneState& chosen = lane(layer, head);
    if (is_full(chosen)) {
      chosen.new_slot = worst_slot(chosen, position);
      chosen.positions[static_cast<size_t>(chosen.new_slot)] = position;
      chosen.scores[static_cast<size_t>(chosen.new_slot)] = first_score;
      ++evicted_;
    } else {
      chosen.new_slot = static_cast<int32_t>(chosen.positions.size());
      chosen.positions.push_back(position);
      chosen.scores.push_back(first_score);
    }
    slots[static_cast<size_t>(head)] = chosen.new_slot;
  }
}

// Entries into the order of their positions, as scores are made for; their slots are no promise to anybody.
void Evictor::sort_by_position(const KvView& kv, int32_t kv_head, LaneState& lane, CompressorScratch& scratch) {
  if (std::is_sorted(lane.positions.begin(), lane.positions.end())) return;
  std::vector<int32_t> order(lane.positions.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    return lane.positions[static_cast<size_t>(a)] < lane.positions[static_cast<size_t>(b)];
  });
  const auto count = static_cast<int32_t>(order.size());
  const TensorView slots = scratch.kept.view().slice_rows(kv_head, 1).slice_cols(0, count);
  backend_.upload(slots, order.data());
  backend_.gather(kv, kv_head, slots, count, kv_head);
  const std::vector<float> scores = lane.scores;
  for (size_t slot = 0; slot < order.size(); ++slot) {
    lane.scores[slot] = scores[static_cast<size_t>(order[slot])];
  }
  std::sort(lane.positions.begin(), lane.positions.end());
}

LayerView Evictor::layer_view(const KvView& kv, const TensorView& q, int32_t unseen) const {
  return {.backend = &backend_,
          .kv = kv,
          .observed_q = q,
          .unseen = unseen,
          .q_heads = options_.q_heads,
          .kv_heads = options_.geometry.kv_heads,
          .scale = attention_scale(options_.geometry.head_dim)};
}

void Evictor::refresh(KvCache& cache, SequenceId sequence, int32_t layer, int32_t position,
                      CompressorScratch& scratch) {
  const int32_t heads = options_.geometry.kv_heads;
  const auto length = static_cast<int32_t>(lane(layer, 0).positions.size());
  if (length <= window_) return;
  const LayerLanes lanes(cache, {sequence}, layer);
  const KvView& kv = lanes.kv();
  for (int32_t head = 0; head < heads; ++head) {
    PKV_CHECK(static_cast<int32_t>(lane(layer, head).positions.size()) == length, "lanes of one layer are alike");
    sort_by_position(kv, head, lane(layer, head), scratch);
  }

  // The newest queries, oldest first: each sees the entries up to its own, which are the newest of the lane.
  const int32_t rows = std::min(window_, position);
  for (int32_t row = 0; row < rows; ++row) {
    backend_.copy(ordered_q_.view().slice_rows(row, 1), ring(layer).slice_rows((position - rows + row) % window_, 1));
  }
  LayerView view = layer_view(kv, ordered_q_.view().slice_rows(0, rows), rows - 1);
  view.layer = layer;
  view.tokens = length;
  policy_.score(view, {.lse = lse_.view().slice_rows(0, rows),
                       .sums = scratch.sums.view().slice_cols(0, length),
                       .mass = scratch.mass.view().slice_cols(0, length),
                       .scores = scratch.scores.view().slice_cols(0, length)});
  std::vector<float> scores(static_cast<size_t>(length - window_));
  for (int32_t head = 0; head < heads; ++head) {
    LaneState& scored = lane(layer, head);
    backend_.fetch({scores.data(), scratch.scores.view().slice_rows(head, 1).slice_cols(0, length - window_)});
    for (size_t slot = 0; slot < scored.scores.size(); ++slot) {
      if (scored.scores[slot] != kNever) scored.scores[slot] = slot < scores.size() ? scores[slot] : kUnscored;
    }
  }
}

void Evictor::observe(int32_t layer, const NewToken& token, CompressorScratch& scratch) {
  switch (policy_.decode_scoring()) {
    case DecodeScoring::kOnEntry:
      score_entries(layer, token);
      return;
    case DecodeScoring::kEveryStep:
      add_attention(layer, token, scratch);
      return;
    case DecodeScoring::kAtIntervals: {
      const LaneState& first = lane(layer, 0);
      const int32_t position = first.positions[static_cast<size_t>(first.new_slot)];
      backend_.copy(ring(layer).slice_rows(position % window_, 1), token.q);
      return;
    }
  }
}

void Evictor::score_entries(int32_t layer, const NewToken& token) {
  const auto size = static_cast<size_t>(options_.geometry.head_dim);
  std::vector<float> keys(static_cast<size_t>(token.k.cols));
  backend_.fetch({keys.data(), token.k});
  for (int32_t head = 0; head < options_.geometry.kv_heads; ++head) {
    LaneState& scored = lane(layer, head);
    const auto slot = static_cast<size_t>(scored.new_slot);
    scored.scores[slot] = policy_.entry_score({.key = std::span(keys).subspan(static_cast<size_t>(head) * size, size),
                                               .layer = layer,
                                               .kv_head = head,
                                               .position = scored.positions[slot],
                                               .lane_state = scored.state});
  }
}

void Evictor::add_attention(int32_t layer, const NewToken& token, CompressorScratch& scratch) {
  const int32_t heads = options_.geometry.kv_heads;
  const int32_t length = token.kv.lanes[token.first_lane].length;
  LayerView view = layer_view(token.kv, token.q, 0);
  view.first_lane = token.first_lane;
  view.tokens = length;
  const TensorView sums = scratch.sums.view().slice_cols(0, length);
  const TensorView mass = scratch.mass.view().slice_cols(0, length);
  sum_observed_attention(view, lse_.view(), sums);
  backend_.reduce_groups(sums, GroupReduce::kMean, mass);
  std::vector<float> added(static_cast<size_t>(length));
  for (int32_t head = 0; head < heads; ++head) {
    LaneState& grown = lane(layer, head);
    PKV_CHECK(grown.scores.size() == added.size(), "lanes of one layer are alike");
    backend_.fetch({added.data(), mass.slice_rows(head, 1)});
    for (size_t slot = 0; slot < added.size(); ++slot) grown.scores[slot] += added[slot];
  }
}

}  // namespace pkv
