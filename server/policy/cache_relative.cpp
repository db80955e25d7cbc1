// Keeps the sinks at the distance from the newest token that they have in the cache.
#include "server/policy/cache_relative.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "kernels/check.h"
#include "kernels/status_macros.h"
#include "server/cache/layer_lanes.h"

namespace pkv {

uint64_t CacheRelative::state_bytes(const CacheGeometry& geometry, int32_t sinks) {
  const uint64_t row =
      uint64_t{4} * static_cast<uint64_t>(geometry.kv_heads) * static_cast<uint64_t>(geometry.head_dim);
  return row * static_cast<uint64_t>(sinks) * static_cast<uint64_t>(2 * geometry.layers + 1);
}

absl::StatusOr<std::unique_ptr<CacheRelative>> CacheRelative::create(KvCache& cache, const Options& options) {
  PKV_ASSIGN_OR_RETURN(StepBuffer buffer, StepBuffer::create(cache, {.rows = options.sinks, .spans = 1}));
  std::unique_ptr<CacheRelative> made(new CacheRelative(cache, options, std::move(buffer)));
  const CacheGeometry& geometry = cache.geometry();
  const int64_t width = int64_t{geometry.kv_heads} * geometry.head_dim;
  const struct {
    Tensor& tensor;
    int64_t rows;
  } wanted[] = {{made->keys_, int64_t{geometry.layers} * options.sinks},
                {made->values_, int64_t{geometry.layers} * options.sinks},
                {made->turned_, options.sinks}};
  for (const auto& [tensor, rows] : wanted) {
    if (rows == 0) continue;
    PKV_ASSIGN_OR_RETURN(tensor, cache.backend().allocate(rows, width, DType::kF32));
  }
  return made;
}

void CacheRelative::capture(int32_t layer, const TensorView& k, const TensorView& v, int32_t first_row) {
  const int64_t rows = std::min<int64_t>(k.rows, sinks() - first_row);
  if (rows <= 0) return;
  const int64_t at = int64_t{layer} * options_.sinks + first_row;
  backend_.copy(keys_.view().slice_rows(at, rows), k.slice_rows(0, rows));
  backend_.copy(values_.view().slice_rows(at, rows), v.slice_rows(0, rows));
}

int32_t CacheRelative::begin_token(SequenceId sequence, int32_t length) {
  if (next_ < 0) next_ = options_.prompt_tokens;
  if (next_ >= options_.max_positions) {
    const int32_t shift = next_ - (length - 1);
    PKV_CHECK(shift > 0, "a cache as long as the model's length");
    turn_back(sequence, shift);
    next_ -= shift;
  }
  const int32_t delta = next_ - (length - 1);
  if (delta != delta_) write_sinks(sequence, delta);
  delta_ = delta;
  return next_++;
}

void CacheRelative::write_sinks(SequenceId sequence, int32_t delta) {
  if (sinks() == 0) return;
  RopeSpec rope = options_.rope;
  rope.magnitude = 1;  // the copies have it already
  const int32_t heads = cache_.geometry().kv_heads;
  for (int32_t layer = 0; layer < cache_.geometry().layers; ++layer) {
    buffer_.begin(Phase::kPrefill, {.rows = sinks(), .spans = 1}, layer);
    std::iota(buffer_.positions(), buffer_.positions() + sinks(), 0);
    std::fill_n(buffer_.angles(), sinks(), delta);
    buffer_.spans()[0] = {.first_row = 0, .rows = sinks(), .first_lane = 0};
    cache_.view(sequence, layer, 0, buffer_.lanes());
    for (int32_t head = 0; head < heads; ++head) buffer_.lanes()[head].write_slot = 0;
    const StepPlan plan = buffer_.commit();
    const int64_t at = int64_t{layer} * options_.sinks;
    const TensorView turned = turned_.view().slice_rows(0, sinks());
    backend_.copy(turned, keys_.view().slice_rows(at, sinks()));
    backend_.rope(turned, plan.angles, rope);
    backend_.write_kv(turned, values_.view().slice_rows(at, sinks()), plan.positions, plan.cache, plan.spans, heads);
  }
}

void CacheRelative::turn_back(SequenceId sequence, int32_t shift) {
  for (int32_t layer = 0; layer < cache_.geometry().layers; ++layer) {
    const LayerLanes lanes(cache_, {sequence}, layer);
    backend_.turn_keys(lanes.kv(), 0, cache_.geometry().kv_heads, sinks(), -shift, options_.rope);
  }
}

}  // namespace pkv
