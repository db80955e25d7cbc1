// Where the next token goes, and what has to be known for it.
#include "server/engine/sequence_lanes.h"

#include <algorithm>
#include <utility>

#include "kernels/status_macros.h"

namespace pkv {

absl::StatusOr<std::unique_ptr<SequenceLanes>> SequenceLanes::open(const Options& options) {
  KvCache& cache = options.cache;
  std::unique_ptr<SequenceLanes> lanes(
      new SequenceLanes(cache, cache.open(options.spec.kv_dtype), options.plan.state_bytes));
  const CacheGeometry& geometry = cache.geometry();
  Backend& backend = options.model.backend();
  if (options.plan.evicts_while_generating) {
    PKV_ASSIGN_OR_RETURN(lanes->evictor_, Evictor::create(backend, options.policy, options.plan,
                                                          {.geometry = geometry,
                                                           .q_heads = options.model.shape().q_heads,
                                                           .interval_tokens = options.spec.budget.interval_tokens}));
  }
  if (options.plan.cache_relative) {
    PKV_ASSIGN_OR_RETURN(lanes->relative_,
                         CacheRelative::create(backend, {.geometry = geometry,
                                                         .sinks = options.policy.sink_tokens(),
                                                         .prompt_tokens = options.prompt_tokens,
                                                         .max_positions = options.model.shape().max_positions,
                                                         .rope = options.model.rope()}));
  }
  lanes->slots_.resize(static_cast<size_t>(geometry.layers) * static_cast<size_t>(geometry.kv_heads));
  return lanes;
}

std::vector<std::vector<std::vector<int32_t>>> SequenceLanes::positions() const {
  const CacheGeometry& geometry = cache_.geometry();
  std::vector<std::vector<std::vector<int32_t>>> layers(static_cast<size_t>(geometry.layers));
  for (int32_t layer = 0; layer < geometry.layers; ++layer) {
    for (int32_t head = 0; head < geometry.kv_heads; ++head) {
      std::vector<int32_t> lane = cache_.positions(id_, layer, head);
      std::sort(lane.begin(), lane.end());
      layers[static_cast<size_t>(layer)].push_back(std::move(lane));
    }
  }
  return layers;
}

void SequenceLanes::capture(int32_t layer, const TensorView& k, const TensorView& v, int32_t first_row) {
  if (relative_) relative_->capture(layer, k, v, first_row);
}

std::span<int32_t> SequenceLanes::layer_slots(int32_t layer) {
  const auto heads = static_cast<size_t>(cache_.geometry().kv_heads);
  return std::span(slots_).subspan(static_cast<size_t>(layer) * heads, heads);
}

absl::StatusOr<int32_t> SequenceLanes::place_token(int32_t position) {
  const CacheGeometry& geometry = cache_.geometry();
  if (evictor_) evictor_->begin_token(position);
  for (int32_t layer = 0; layer < geometry.layers; ++layer) {
    const std::span<int32_t> slots = layer_slots(layer);
    for (int32_t head = 0; head < geometry.kv_heads; ++head) {
      const bool grows = !evictor_ || evictor_->grows(layer, head);
      slots[static_cast<size_t>(head)] = grows ? cache_.length(id_, layer, head) : 0;
    }
    PKV_RETURN_IF_ERROR(cache_.place_token(id_, layer, slots));
  }
  return relative_ ? relative_->begin_token(cache_.length(id_, 0, 0)) : position;
}

void SequenceLanes::view_token(int32_t layer, std::vector<Lane>& lanes, std::vector<int32_t>& page_ids) const {
  const auto heads = static_cast<size_t>(cache_.geometry().kv_heads);
  cache_.view_token(id_, layer, std::span(slots_).subspan(static_cast<size_t>(layer) * heads, heads), lanes, page_ids);
  if (evictor_) evictor_->mark(layer, std::span(lanes).last(heads));
}

void SequenceLanes::prepare(const KvView& kv, int32_t first_lane, int32_t lanes_per_layer, CompressorScratch& scratch) {
  const int32_t layers = cache_.geometry().layers;
  for (int32_t layer = 0; layer < layers && evictor_; ++layer) {
    evictor_->refresh(layer, kv, layer * lanes_per_layer + first_lane, scratch);
  }
  if (relative_) relative_->move_keys(kv, first_lane, lanes_per_layer);
}

void SequenceLanes::observe(int32_t layer, const Evictor::NewToken& token, CompressorScratch& scratch) {
  if (evictor_) evictor_->observe(layer, token, scratch);
}

void SequenceLanes::end_token() {
  if (evictor_) evictor_->end_token();
}

}  // namespace pkv
