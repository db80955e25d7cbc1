// Makes room while tokens are generated (scope TOTAL). Scores and positions of all entries lie in backend memory and
// never leave it: the backend's operations score new entries and choose those that go (kernels/eviction.h). The host
// knows lengths, and by counting when scores have to be made anew. What is kept are auxiliary bytes of the request.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/tensor_set.h"
#include "server/policy/cache_plan.h"
#include "server/policy/compressor_scratch.h"
#include "server/policy/policy.h"

namespace pkv {

class Evictor {
 public:
  struct Options {
    CacheGeometry geometry;
    int32_t q_heads = 0;
    int32_t interval_tokens = 0;
    TensorView value_factors;  // of the model, for policies that weigh values
  };
  // `backend` and `policy` must outlive the evictor; `plan` evicts_while_generating. RESOURCE_EXHAUSTED where the
  // backend has no memory for what is kept.
  static absl::StatusOr<std::unique_ptr<Evictor>> create(Backend& backend, const CachePolicy& policy,
                                                         const CachePlan& plan, const Options& options);
  // What create() allocates: per entry that lanes may have a score and a position, per lane its state, per layer the
  // newest queries.
  static uint64_t state_bytes(const CachePolicy& policy, const CachePlan& plan, const Options& options);

  // ---- from the prompt, layer by layer
  // Where the queries of the newest rows go: [W, Hq * d], row position % W. Only DecodeRule::Scoring::kAtIntervals.
  TensorView ring(int32_t layer) const;
  // Where the lanes' states go: [kv_heads, lane_state_floats].
  TensorView lane_states(int32_t layer) const;
  // What the cut left of the layer's lanes, of a prompt of `tokens`.
  struct LayerCut {
    int32_t tokens = 0;
    std::span<const int32_t> counts;  // [kv_heads] entries of each lane
    TensorView kept;                  // [kv_heads, >= counts] i32: the entries' columns, ascending; the newest W all
    TensorView scores;                // [kv_heads, tokens], changed where columns have no score or never go
    int32_t scored = 0;               // the first so many columns have scores
  };
  // Where all layers share their entries, after the prompt and in the order of the layers.
  void set_layer(int32_t layer, const LayerCut& cut);

  // ---- for every token: first on the host
  // A token is to be written at `position`: every lane grows by one entry, or gives one up.
  void begin_token(int32_t position);
  // Marks the layer's lanes [kv_heads] of a step for the operations on them.
  void mark(int32_t layer, std::span<Lane> lanes) const;
  // What the step's operations have to know, the token being row `row` of the step.
  EvictingRow evicting_row(int32_t row) const;

  // ---- and then in stream order, layer by layer; kv.lanes[first_lane + kv_head] are the layer's lanes of the step
  // Before Backend::choose_slots(): scores the layer anew where that is due; its entries move to other slots for it.
  void refresh(int32_t layer, const KvView& kv, int32_t first_lane, CompressorScratch& scratch);
  // The token went through all layers.
  void end_token() { ++tokens_; }

  uint64_t evicted_entries() const { return evicted_; }

 private:
  struct LaneState {
    int32_t first = 0;  // of its entries in scores_ and positions_
    int32_t limit = 0;
    int32_t length = 0;
    int32_t scored = 0;  // entries with a score that may go; counted only where scores are made at intervals
    bool grows = false;  // for the token under way
    int32_t entries_before() const { return grows ? length - 1 : length; }
  };
  // Neighbouring lanes of a layer that are equally long and go through operations together.
  struct LaneRun {
    int32_t first_head = 0;
    int32_t heads = 0;
  };

  Evictor(Backend& backend, const CachePolicy& policy, const CachePlan& plan, const Options& options);
  static TensorSet<Evictor> tensors(const CachePolicy& policy, const CachePlan& plan, const Options& options);
  const LaneState& lane(int32_t layer, int32_t kv_head) const;
  LaneState& lane(int32_t layer, int32_t kv_head);
  // Sinks and pins before `position`: each lane has all of them.
  int32_t kept_before(int32_t position) const;
  bool is_due(int32_t layer) const;
  // The run that begins at `first_head`; without heads where there are no more.
  LaneRun lane_run(int32_t layer, int32_t first_head) const;
  ScoredLanes scored_lanes(const KvView& kv, int32_t first_lane, const LaneRun& run) const;
  // What a policy scores a run of lanes by; layer and length are the caller's.
  LayerView run_view(const KvView& kv, int32_t first_lane, const LaneRun& run, const ObservedRows& rows) const;
  TensorView query_heads(const TensorView& tensor, const LaneRun& run, int32_t width) const;
  void order_lanes(const KvView& kv, int32_t first_lane, CompressorScratch& scratch);
  TensorView newest_queries(int32_t layer);

  Backend& backend_;
  const CachePolicy& policy_;
  const DecodeRule rule_;
  Options options_;
  int32_t window_ = 0;
  std::vector<TokenSpan> kept_spans_;
  bool shares_model_ = false;     // lanes' places and limits are known when all layers are cut
  std::vector<LaneState> lanes_;  // [layers * kv_heads]
  std::vector<bool> shares_;      // [layers]: lanes' places and limits are known when the layer is cut
  std::vector<bool> due_;         // [layers]: scores are made anew for the token under way
  Tensor scores_;                 // [1, entries of all lanes]
  Tensor positions_;              // likewise, i32
  Tensor states_;                 // [layers * kv_heads, lane_state_floats]
  Tensor ring_;                   // [layers * W, Hq * d]
  Tensor ordered_q_;              // [W, Hq * d]: of one layer, ascending by position
  Tensor lse_;                    // [W, Hq]
  int32_t position_ = 0;          // of the token under way
  int32_t tokens_ = 0;            // written since the prompt
  uint64_t evicted_ = 0;
};

}  // namespace pkv
