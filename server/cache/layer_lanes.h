// The lanes of one layer of some sequences between two steps, as the backend's operations take them.
#pragma once

#include <initializer_list>

#include "server/cache/kv_cache.h"
#include "server/cache/step_buffer.h"

namespace pkv {

class LayerLanes {
 public:
  // Lane i * kv_heads + h of the view: KV head h of sequences[i], of which the operation to come writes the last `rows`
  // entries. Valid until the cache changes, or other lanes are looked at.
  LayerLanes(KvCache& cache, std::initializer_list<SequenceId> sequences, int32_t layer, int32_t rows = 0) {
    StepBuffer& buffer = cache.between_steps();
    buffer.begin(Phase::kPrefill, {.spans = static_cast<int32_t>(sequences.size())}, layer);
    Lane* lanes = buffer.lanes();
    for (const SequenceId sequence : sequences) {
      cache.view(sequence, layer, rows, lanes);
      lanes += cache.geometry().kv_heads;
    }
    kv_ = buffer.commit().cache;
  }

  const KvView& kv() const { return kv_; }

 private:
  KvView kv_;
};

}  // namespace pkv
