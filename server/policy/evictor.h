// Makes room while tokens are generated (scope TOTAL): knows the score and the position of every entry and names,
// before each new entry is written, the one that goes. What it keeps are auxiliary bytes of the request.
//
// Of the candidates, entries outside the newest W tokens (the new one among them), sinks and pins, the one of the
// lowest score goes; of equals the latest. Entries without a score yet are candidates only where no other is.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/policy/cache_plan.h"
#include "server/policy/compressor_scratch.h"
#include "server/policy/policy.h"

namespace pkv {

struct EvictorOptions {
  CacheGeometry geometry;
  int32_t q_heads = 0;
  int32_t interval_tokens = 0;
};

class Evictor {
 public:
  // `backend` and `policy` must outlive the evictor; `plan` evicts_while_generating. RESOURCE_EXHAUSTED where the
  // backend has no memory for the ring of queries.
  static absl::StatusOr<std::unique_ptr<Evictor>> create(Backend& backend, const CachePolicy& policy,
                                                         const CachePlan& plan, const EvictorOptions& options);
  // What create() will allocate: per lane slot a score and a position, per lane its state, per layer the newest
  // queries.
  static uint64_t state_bytes(const CachePolicy& policy, const CachePlan& plan, const EvictorOptions& options);

  // ---- from the prompt, layer by layer
  // Where the queries of the newest rows go: [W, Hq * d], row position % W. Only DecodeScoring::kAtIntervals.
  TensorView ring(int32_t layer) const;
  // A lane after the cut: positions and scores in slot order (NaN: none yet), state [lane_state_floats].
  void set_lane(int32_t layer, int32_t kv_head, std::span<const int32_t> positions, std::span<const float> scores,
                std::span<const float> state);

  // ---- for every token, layer by layer
  // Chooses the slot of the token at `position` in every lane of the layer, slots [kv_heads], as
  // KvCache::place_token() takes them. Scores anew where that is due; entries may move to other slots for it.
  void choose_slots(KvCache& cache, SequenceId sequence, int32_t layer, int32_t position, CompressorScratch& scratch,
                    std::span<int32_t> slots);
  // The token went through the layer: its query [1, Hq * d] and key [1, Hkv * d], rotated, and the layer's lanes with
  // it written, kv.lanes[first_lane + kv_head].
  struct NewToken {
    TensorView q;
    TensorView k;
    KvView kv;
    int32_t first_lane = 0;
  };
  void observe(int32_t layer, const NewToken& token, CompressorScratch& scratch);
  // The token went through all layers.
  void end_token() { ++tokens_; }

  uint64_t evicted_entries() const { return evicted_; }

 private:
  struct LaneState {
    std::vector<float> scores;       // [length]; NaN: none yet
    std::vector<int32_t> positions;  // [length]
    int32_t limit = 0;
    int32_t new_slot = 0;  // of the token under way
    std::vector<float> state;
  };

  Evictor(Backend& backend, const CachePolicy& policy, const CachePlan& plan, const EvictorOptions& options);
  LaneState& lane(int32_t layer, int32_t kv_head);
  // What every view has in common; layer, first lane and length are the caller's.
  LayerView layer_view(const KvView& kv, const TensorView& q, int32_t unseen) const;
  bool is_candidate(const LaneState& lane, size_t slot, int32_t position) const;
  int32_t worst_slot(const LaneState& lane, int32_t position) const;
  bool lacks_scored_candidate(const LaneState& lane, int32_t position) const;
  void refresh(KvCache& cache, SequenceId sequence, int32_t layer, int32_t position, CompressorScratch& scratch);
  void sort_by_position(const KvView& kv, int32_t kv_head, LaneState& lane, CompressorScratch& scratch);
  void add_attention(int32_t layer, const NewToken& token, CompressorScratch& scratch);
  void score_entries(int32_t layer, const NewToken& token);

  Backend& backend_;
  const CachePolicy& policy_;
  EvictorOptions options_;
  int32_t window_ = 0;
  std::vector<TokenSpan> kept_spans_;
  std::vector<LaneState> lanes_;  // [layers * kv_heads]
  Tensor ring_;                   // [layers * W, Hq * d]
  Tensor ordered_q_;              // [W, Hq * d]: of one layer, ascending by position
  Tensor lse_;                    // [max(W, 1), Hq]
  int32_t tokens_ = 0;            // written since the prompt
  uint64_t evicted_ = 0;
};

}  // namespace pkv
