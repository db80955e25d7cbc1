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
  // The lanes of one sequence twice: as they are, and as they will be once they are cut.
  static LayerLanes before_and_after_cut(KvCache& cache, SequenceId sequence, int32_t layer) {
    StepBuffer& buffer = cache.between_steps();
    buffer.begin(Phase::kPrefill, {.spans = 2}, layer);
    cache.view(sequence, layer, 0, buffer.lanes());
    cache.view_cut(sequence, layer, buffer.lanes() + cache.geometry().kv_heads);
    return LayerLanes(buffer.commit().cache);
  }

  const KvView& kv() const { return kv_; }

 private:
  explicit LayerLanes(const KvView& kv) : kv_(kv) {}

  KvView kv_;
};

}  // namespace pkv
