// Keeps the sinks at the distance from the newest token that they have in the cache.
#include "server/policy/cache_relative.h"

#include <algorithm>
#include <utility>

#include "kernels/check.h"
#include "kernels/status_macros.h"

namespace pkv {

TensorSet<CacheRelative> CacheRelative::tensors(const CacheGeometry& geometry, int32_t sinks) {
  const int64_t width = int64_t{geometry.kv_heads} * geometry.head_dim, copies = int64_t{geometry.layers} * sinks;
  return {{&CacheRelative::keys_, copies, width},
          {&CacheRelative::values_, copies, width},
          {&CacheRelative::turned_, sinks, width}};
}

uint64_t CacheRelative::state_bytes(const CacheGeometry& geometry, int32_t sinks) {
  return tensors(geometry, sinks).bytes();
}

absl::StatusOr<std::unique_ptr<CacheRelative>> CacheRelative::create(Backend& backend, const Options& options) {
  std::unique_ptr<CacheRelative> made(new CacheRelative(backend, options));
  PKV_RETURN_IF_ERROR(tensors(options.geometry, options.sinks).allocate(backend, *made));
  return made;
}

void CacheRelative::capture(int32_t layer, const TensorView& k, const TensorView& v, int32_t first_row) {
  const int64_t rows = std::min<int64_t>(k.rows, sinks() - first_row);
  if (rows <= 0) return;
  const int64_t at = int64_t{layer} * sinks() + first_row;
  backend_.copy(keys_.view().slice_rows(at, rows), k.slice_rows(0, rows));
  backend_.copy(values_.view().slice_rows(at, rows), v.slice_rows(0, rows));
}

int32_t CacheRelative::begin_token(int32_t length) {
  if (next_ < 0) next_ = options_.prompt_tokens;
  if (next_ >= options_.max_positions) {
    back_ = next_ - (length - 1);
    PKV_CHECK(back_ > 0, "a cache as long as the model's length");
    next_ -= back_;
  }
  delta_ = next_ - (length - 1);
  return next_++;
}

void CacheRelative::move_keys(const KvView& kv, int32_t first_lane, int32_t lanes_per_layer) {
  const CacheGeometry& geometry = options_.geometry;
  for (int32_t layer = 0; layer < geometry.layers && back_ > 0; ++layer) {
    backend_.turn_keys(kv, layer * lanes_per_layer + first_lane, geometry.kv_heads, sinks(), -back_, options_.rope);
  }
  back_ = 0;
  if (delta_ == stored_ || sinks() == 0) return;
  backend_.write_turned({.keys = keys_.view(),
                         .values = values_.view(),
                         .turned = turned_.rows(sinks()),
                         .rows = sinks(),
                         .delta = delta_,
                         .kv = kv,
                         .first_lane = first_lane,
                         .lanes_per_layer = lanes_per_layer,
                         .layers = geometry.layers,
                         .kv_heads = geometry.kv_heads},
                        options_.rope);
  stored_ = delta_;
}

}  // namespace pkv
