// The cut where the lanes of all layers share a budget by their scores.
#include <algorithm>

#include "kernels/status_macros.h"
#include "server/cache/layer_lanes.h"
#include "server/policy/compressor.h"

namespace pkv {

absl::StatusOr<std::optional<LayerOutcome>> Compressor::share_step(const Cut& cut, int32_t layer) {
  if (cascade_->layers() == layer) {
    PKV_RETURN_IF_ERROR(add_to_cascade(cut, layer));
    return std::nullopt;
  }
  const bool last = layer + 1 == options_.geometry.layers;
  while (recut_ < layer && !is_worth_cutting(recut_, last)) ++recut_;
  if (recut_ < layer) {
    cut_again(cut, recut_++);
    return std::nullopt;
  }
  const std::vector<int32_t> counts = cascade_->counts(layer);
  upload_kept(cut, layer);
  cascade_->set_cut(layer);
  set_lane_limits(cut, /*growth=*/0);
  for (const Target& target : cut.targets) {
    if (target.evictor != nullptr) keep_newest_rows(layer, *target.evictor);
    PKV_RETURN_IF_ERROR(move_entries(cut, target, layer, counts));
  }
  if (last) end_sharing(cut);
  return shared_outcome(layer);
}

absl::Status Compressor::add_to_cascade(const Cut& cut, int32_t layer) {
  PKV_ASSIGN_OR_RETURN(LayerScores read, read_scores(selection_input(cut, layer)));
  cascade_->add_layer(std::move(read.scores), read.mass);
  recut_ = 0;
  return absl::OkStatus();
}

bool Compressor::is_worth_cutting(int32_t layer, bool in_the_end) const {
  const std::vector<int32_t> counts = cascade_->counts(layer);
  const PageLayout layout = options_.geometry.layout(plan_.kv_dtype);
  for (int32_t head = 0; head < options_.geometry.kv_heads; ++head) {
    const int32_t kept = counts[static_cast<size_t>(head)], held = cascade_->held(layer, head);
    if (in_the_end ? kept < held : layout.pages_for(kept) < layout.pages_for(held)) return true;
  }
  return false;
}

void Compressor::cut_again(const Cut& cut, int32_t layer) {
  upload_kept(cut, layer);
  for (const Target& target : cut.targets) {
    backend_.gather(LayerLanes(cut.cache, {target.sequence}, layer).kv(), 0, cut.scratch.kept.view(),
                    cut.scratch.counts.view(), 0);
    cut.cache.cut(target.sequence, layer, cascade_->counts(layer));
  }
  cascade_->set_cut(layer);
}

void Compressor::upload_kept(const Cut& cut, int32_t layer) {
  for (int32_t head = 0; head < options_.geometry.kv_heads; ++head) {
    const std::vector<int32_t> slots = cascade_->kept_slots(layer, head);
    const auto count = static_cast<int64_t>(slots.size());
    backend_.upload(cut.scratch.kept.view().slice_rows(head, 1).slice_cols(0, count), slots.data());
  }
  backend_.upload(cut.scratch.counts.view(), cascade_->counts(layer).data());
}

void Compressor::set_lane_limits(const Cut& cut, int32_t growth) {
  std::vector<int32_t> limits(plan_.lane_limits.size(), 0);
  for (int32_t layer = 0; layer < cascade_->layers(); ++layer) {
    for (int32_t head = 0; head < options_.geometry.kv_heads; ++head) {
      const int32_t lane = layer * options_.geometry.kv_heads + head;
      limits[static_cast<size_t>(lane)] = cascade_->held(layer, head) + growth;
    }
  }
  for (const Target& target : cut.targets) cut.cache.set_limits(target.sequence, limits);
}

// Everything is cut to what is kept by now.
void Compressor::end_sharing(const Cut& cut) {
  const int64_t growth = plan_.model_limit - plan_.model_budget;
  set_lane_limits(cut, static_cast<int32_t>(growth / static_cast<int64_t>(plan_.lane_limits.size())));
  const int32_t past = std::max(0, options_.prompt_tokens - plan_.window_tokens);
  const TensorView scores = cut.scratch.scores.view();
  for (int32_t layer = 0; layer < options_.geometry.layers; ++layer) {
    for (const Target& target : cut.targets) {
      if (target.evictor == nullptr) continue;
      for (int32_t head = 0; head < options_.geometry.kv_heads; ++head) {
        const std::vector<int32_t> kept = cascade_->kept_positions(layer, head);
        const auto count = static_cast<int64_t>(kept.size());
        backend_.upload(cut.scratch.kept.view().slice_rows(head, 1).slice_cols(0, count), kept.data());
        backend_.upload(scores.slice_rows(head, 1).slice_cols(0, past), cascade_->kept_scores(layer, head).data());
      }
      target.evictor->set_layer(layer, {.tokens = options_.prompt_tokens,
                                        .counts = cascade_->counts(layer),
                                        .kept = cut.scratch.kept.view(),
                                        .scores = scores,
                                        .scored = past});
    }
  }
}

LayerOutcome Compressor::shared_outcome(int32_t layer) const {
  LayerOutcome outcome{.kept = cascade_->counts(layer)};
  outcome.budget_tokens = *std::max_element(outcome.kept.begin(), outcome.kept.end());
  for (int32_t head = 0; head < options_.geometry.kv_heads; ++head) {
    outcome.recall.push_back(cascade_->recall(layer, head));
  }
  return outcome;
}

}  // namespace pkv
