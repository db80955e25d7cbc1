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

absl::StatusOr<std::unique_ptr<CacheRelative>> CacheRelative::create(Backend& backend, const Options& options) {
  std::unique_ptr<CacheRelative> made(new CacheRelative(backend, options));
  const int64_t width = int64_t{options.geometry.kv_heads} * options.geometry.head_dim;
  const struct {
    Tensor& tensor;
    int64_t rows;
  } wanted[] = {{made->keys_, int64_t{options.geometry.layers} * options.sinks},
                {made->values_, int64_t{options.geometry.layers} * options.sinks},
                {made->turned_, options.sinks}};
  for (const auto& [tensor, rows] : wanted) {
    if (rows == 0) continue;
    PKV_ASSIGN_OR_RETURN(tensor, backend.allocate(rows, width, DType::kF32));
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

int32_t CacheRelative::begin_token(KvCache& cache, SequenceId sequence, int32_t length) {
  if (next_ < 0) next_ = options_.prompt_tokens;
  if (next_ >= options_.max_positions) {
    const int32_t shift = next_ - (length - 1);
    PKV_CHECK(shift > 0, "a cache as long as the model's length");
    turn_back(cache, sequence, shift);
    next_ -= shift;
  }
  const int32_t delta = next_ - (length - 1);
  if (delta != delta_) write_sinks(cache, sequence, delta);
  delta_ = delta;
  return next_++;
}

void CacheRelative::write_sinks(const KvCache& cache, SequenceId sequence, int32_t delta) {
  if (sinks() == 0) return;
  std::vector<int32_t> positions(static_cast<size_t>(sinks()));
  std::iota(positions.begin(), positions.end(), 0);
  const std::vector<int32_t> deltas(positions.size(), delta);
  const RowSpan span{.first_row = 0, .rows = sinks(), .first_lane = 0};
  RopeSpec rope = options_.rope;
  rope.magnitude = 1;  // the copies have it already
  for (int32_t layer = 0; layer < options_.geometry.layers; ++layer) {
    LayerLanes lanes(cache, {sequence}, layer);
    for (Lane& lane : lanes.lanes()) lane.write_slot = 0;
    const int64_t at = int64_t{layer} * options_.sinks;
    const TensorView turned = turned_.view().slice_rows(0, sinks());
    backend_.copy(turned, keys_.view().slice_rows(at, sinks()));
    backend_.rope(turned, deltas.data(), rope);
    backend_.write_kv(turned, values_.view().slice_rows(at, sinks()), positions.data(), lanes.kv(), {&span, 1},
                      options_.geometry.kv_heads);
  }
}

void CacheRelative::turn_back(const KvCache& cache, SequenceId sequence, int32_t shift) {
  for (int32_t layer = 0; layer < options_.geometry.layers; ++layer) {
    const LayerLanes lanes(cache, {sequence}, layer);
    backend_.turn_keys(lanes.kv(), 0, options_.geometry.kv_heads, sinks(), -shift, options_.rope);
  }
}

}  // namespace pkv
