// The lanes of one layer of some sequences between two steps, as the backend's operations take them.
#pragma once

#include <initializer_list>
#include <vector>

#include "server/cache/kv_cache.h"

namespace pkv {

class LayerLanes {
 public:
  // Lane i * kv_heads + h of the view: KV head h of sequences[i]. Valid until the cache changes.
  LayerLanes(const KvCache& cache, std::initializer_list<SequenceId> sequences, int32_t layer)
      : kv_(cache.base_view()) {
    for (const SequenceId sequence : sequences) cache.view(sequence, layer, 0, lanes_, page_ids_);
    kv_.lanes = lanes_.data();
    kv_.lane_count = static_cast<int32_t>(lanes_.size());
    kv_.page_ids = page_ids_.data();
  }
  LayerLanes(const LayerLanes&) = delete;  // the view points into it
  LayerLanes& operator=(const LayerLanes&) = delete;

  const KvView& kv() const { return kv_; }
  std::vector<Lane>& lanes() { return lanes_; }  // those of the view, to be changed for an operation

 private:
  std::vector<Lane> lanes_;
  std::vector<int32_t> page_ids_;
  KvView kv_;
};

}  // namespace pkv
