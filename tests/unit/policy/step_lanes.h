// The lanes of all layers of one sequence, as a decode step has them.
#pragma once

#include <vector>

#include "server/cache/kv_cache.h"

namespace pkv {

class StepLanes {
 public:
  // Valid until the cache changes.
  StepLanes(const KvCache& cache, SequenceId sequence) : kv_heads_(cache.geometry().kv_heads), kv_(cache.base_view()) {
    for (int32_t layer = 0; layer < cache.geometry().layers; ++layer) cache.view(sequence, layer, 0, lanes_, page_ids_);
    kv_.page_ids = page_ids_.data();
  }
  StepLanes(const StepLanes&) = delete;
  StepLanes& operator=(const StepLanes&) = delete;

  Lane& lane(int32_t layer, int32_t kv_head) { return layer_lanes(layer)[static_cast<size_t>(kv_head)]; }
  std::span<Lane> layer_lanes(int32_t layer) {
    const auto heads = static_cast<size_t>(kv_heads_);
    return std::span(lanes_).subspan(static_cast<size_t>(layer) * heads, heads);
  }
  // The lanes from this layer on; layer after layer.
  KvView kv(int32_t first_layer) {
    KvView view = kv_;
    view.lanes = layer_lanes(first_layer).data();
    view.lane_count = static_cast<int32_t>(lanes_.size()) - first_layer * kv_heads_;
    return view;
  }

 private:
  int32_t kv_heads_;
  KvView kv_;
  std::vector<Lane> lanes_;
  std::vector<int32_t> page_ids_;
};

}  // namespace pkv
