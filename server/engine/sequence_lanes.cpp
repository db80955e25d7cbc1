// Where the next token goes, and what has to be known for it.
#include "server/engine/sequence_lanes.h"

#include <utility>

#include "kernels/check.h"
#include "kernels/status_macros.h"

namespace pkv {

absl::StatusOr<std::unique_ptr<SequenceLanes>> SequenceLanes::open(const Options& options) {
  KvCache& cache = options.cache;
  PKV_ASSIGN_OR_RETURN(const SequenceId id,
                       cache.open({.dtype = options.spec.kv_dtype,
                                   .lane_entries = options.plan.lane_limits,
                                   .layer_entries = options.holds_whole_layers ? options.prompt_tokens : 0,
                                   .shared_entries = options.plan.model_limit}));
  std::unique_ptr<SequenceLanes> lanes(new SequenceLanes(cache, id, options.plan.state_bytes));
  const CacheGeometry& geometry = cache.geometry();
  Backend& backend = options.model.backend();
  if (options.plan.evicts_while_generating) {
    PKV_ASSIGN_OR_RETURN(lanes->evictor_, Evictor::create(backend, options.policy, options.plan,
                                                          {.geometry = geometry,
                                                           .q_heads = options.model.shape().q_heads,
                                                           .interval_tokens = options.spec.budget.interval_tokens,
                                                           .value_factors = options.model.value_factors(),
                                                           .most_step_work = options.most_step_work}));
  }
  if (options.plan.cache_relative) {
    PKV_ASSIGN_OR_RETURN(lanes->relative_,
                         CacheRelative::create(backend, {.geometry = geometry,
                                                         .sinks = options.policy.sink_tokens(),
                                                         .prompt_tokens = options.prompt_tokens,
                                                         .max_positions = options.model.shape().max_positions,
                                                         .rope = options.model.rope()}));
  }
  return lanes;
}

void SequenceLanes::read_positions(int32_t layer, std::vector<std::vector<int32_t>>& to,
                                   std::vector<Fetch>& reads) const {
  const int32_t kv_heads = cache_.geometry().kv_heads;
  to.resize(static_cast<size_t>(kv_heads));
  for (int32_t head = 0; head < kv_heads; ++head) {
    cache_.read_positions(id_, layer, head, to[static_cast<size_t>(head)], reads);
  }
}

void SequenceLanes::capture(int32_t layer, const TensorView& k, const TensorView& v, int32_t first_row) {
  if (relative_) relative_->capture(layer, k, v, first_row);
}

absl::StatusOr<int32_t> SequenceLanes::place_token(int32_t position) {
  if (evictor_) evictor_->begin_token(position);
  PKV_ASSIGN_OR_RETURN(const int64_t full, cache_.place_token(id_));
  PKV_CHECK(evictor_ || full == 0, "a lane beyond its limit without evictions");
  return relative_ ? relative_->begin_token(cache_.length(id_, 0, 0)) : position;
}

void SequenceLanes::view_token(Lane* lanes, int64_t layer_stride) const {
  cache_.view_token(id_, lanes, layer_stride);
  const CacheGeometry& geometry = cache_.geometry();
  for (int32_t layer = 0; evictor_ && layer < geometry.layers; ++layer) {
    evictor_->mark(layer, {lanes + layer * layer_stride, static_cast<size_t>(geometry.kv_heads)});
  }
}

void SequenceLanes::move_keys(const KvView& kv, int32_t first_lane) {
  if (relative_) relative_->move_keys(kv, first_lane, kv.lane_count);
}

void SequenceLanes::end_token() {
  if (evictor_) evictor_->end_token();
}

}  // namespace pkv
