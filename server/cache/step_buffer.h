// Where steps are written down: one piece of staged memory, large enough for the largest step, that goes to the backend
// in one commit together with the page ids that changed.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "server/cache/kv_cache.h"
#include "server/cache/step_plan.h"

namespace pkv {

// Of both sides of staged memory, where they are two.
inline uint64_t staged_bytes(const Staged& memory) {
  return memory.host() == memory.device() ? memory.bytes() : 2 * memory.bytes();
}

class StepBuffer {
 public:
  // What a step has, or at most has.
  struct Size {
    int32_t rows = 0;
    int32_t spans = 0;  // sequences
    int32_t layers = 1;
    int32_t evicting = 0;  // sequences whose entries go for their tokens
    int32_t outputs = 0;   // rows of logits that something is wanted of
  };
  // `cache` must outlive this. RESOURCE_EXHAUSTED where the memory cannot be had.
  static absl::StatusOr<StepBuffer> create(KvCache& cache, const Size& largest);
  uint64_t bytes() const { return staged_bytes(memory_); }

  // Begins a step of the layers from `first_layer` on; the last one's plan is void. All of its parts are to be written,
  // on the host, until commit().
  void begin(Phase phase, const Size& size, int32_t first_layer);
  int32_t* token_ids() { return part<int32_t>(token_ids_); }
  int32_t* positions() { return part<int32_t>(positions_); }
  int32_t* angles() { return part<int32_t>(angles_); }
  RowSpan* spans() { return part<RowSpan>(spans_); }
  Lane* lanes() { return part<Lane>(lanes_); }  // [layers][spans][kv_heads]
  EvictingRow* evicting() { return part<EvictingRow>(evicting_); }
  SampleRow* samples() { return part<SampleRow>(samples_); }
  LogprobRow* logprobs() { return part<LogprobRow>(logprobs_); }
  int64_t layer_lanes() const { return int64_t{size_.spans} * cache_->geometry().kv_heads; }
  // Brings it to the backend; the changes of page tables take effect there.
  StepPlan commit();

 private:
  explicit StepBuffer(KvCache& cache) : cache_(&cache) {}
  // Offsets of the parts for a step of this size; returns where the page ids begin.
  size_t lay_out(const Size& size);
  template <typename T>
  T* part(size_t offset) const {
    return reinterpret_cast<T*>(memory_.host() + offset);
  }
  template <typename T>
  T* device(size_t offset) const {
    return reinterpret_cast<T*>(memory_.device() + offset);
  }

  KvCache* cache_;
  Size largest_;
  Staged memory_;
  Phase phase_ = Phase::kDecode;
  Size size_;  // of the step under way
  int32_t first_layer_ = 0;
  // Offsets, bytes:
  size_t token_ids_ = 0, positions_ = 0, angles_ = 0, spans_ = 0, lanes_ = 0, evicting_ = 0, samples_ = 0,
         logprobs_ = 0, edits_ = 0;
};

}  // namespace pkv
