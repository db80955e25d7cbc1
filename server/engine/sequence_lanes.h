// The cache lanes of one sequence with what moves their entries while tokens are generated. Opens them and, when it
// goes, gives everything back.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "server/cache/kv_cache.h"
#include "server/model/model.h"
#include "server/policy/cache_plan.h"
#include "server/policy/cache_relative.h"
#include "server/policy/compressor.h"
#include "server/policy/evictor.h"

namespace pkv {

class SequenceLanes {
 public:
  struct Options {
    const Model& model;
    KvCache& cache;
    const CachePolicy& policy;
    const PolicySpec& spec;
    const CachePlan& plan;
    int32_t prompt_tokens = 0;
    bool holds_whole_layers = true;  // the prompt goes through these lanes, layer by layer
    int64_t most_step_work = 0;      // of a step of a refresh, where its operations can be divided
  };
  // What is referred to must outlive the lanes. RESOURCE_EXHAUSTED where the machine lacks the memory for the policy's
  // state.
  static absl::StatusOr<std::unique_ptr<SequenceLanes>> open(const Options& options);
  ~SequenceLanes() { cache_.close(id_); }
  SequenceLanes(const SequenceLanes&) = delete;
  SequenceLanes& operator=(const SequenceLanes&) = delete;

  SequenceId id() const { return id_; }
  CacheBytes bytes() const { return cache_.bytes(id_); }
  const CacheGeometry& geometry() const { return cache_.geometry(); }
  KvDtype dtype() const { return cache_.dtype(id_); }
  uint64_t state_bytes() const { return state_bytes_; }  // auxiliary, of what decides evictions
  Evictor* evictor() const { return evictor_.get(); }
  uint64_t evicted_while_generating() const { return evictor_ ? evictor_->evicted_entries() : 0; }
  // Adds the reads that bring the positions of what a layer's lanes hold to `to` [kv_heads], in slot order.
  void read_positions(int32_t layer, std::vector<std::vector<int32_t>>& to, std::vector<Fetch>& reads) const;

  // Rows of the prompt from first_row on have gone through a layer; their keys and values [rows, Hkv * d].
  void capture(int32_t layer, const TensorView& k, const TensorView& v, int32_t first_row);
  // The prompt has gone through all layers, and each has been cut.
  void end_prompt() { cache_.end_prompt(id_); }

  // Whether the next token has to wait until the scores of entries are made anew, and goes on with that: as Evictor.
  bool needs_refresh() { return evictor_ != nullptr && evictor_->needs_refresh(); }
  int64_t refresh(int64_t most) { return evictor_->refresh(cache_, id_, most); }

  // Room for the token at `position` in every lane; not while they need a refresh. Returns the position to rotate it
  // by. RESOURCE_EXHAUSTED where the pool has no page, which a reservation excludes.
  absl::StatusOr<int32_t> place_token(int32_t position);
  // The lanes of every layer as the step sees them that writes this token, as KvCache::view_token(); where an entry has
  // to go for it Backend::choose_slots() names the slot.
  void view_token(Lane* lanes, int64_t layer_stride) const;
  // Moves keys where that is due for this token. `kv` has the step's lanes of the first layer, those of the next ones
  // follow; the sequence's begin at first_lane.
  void move_keys(const KvView& kv, int32_t first_lane);
  // The token went through all layers.
  void end_token();

 private:
  SequenceLanes(KvCache& cache, SequenceId id, uint64_t state_bytes)
      : cache_(cache), id_(id), state_bytes_(state_bytes) {
    cache_.add_auxiliary(id_, state_bytes_);
  }

  KvCache& cache_;
  SequenceId id_;
  uint64_t state_bytes_;
  std::unique_ptr<Evictor> evictor_;
  std::unique_ptr<CacheRelative> relative_;
};

}  // namespace pkv
