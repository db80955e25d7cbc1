// Makes room while tokens are generated (scope TOTAL). Scores and positions of all entries lie in backend memory and
// never leave it: the backend's operations score new entries and choose those that go (kernels/eviction.h). The host
// knows lengths, and by counting when scores have to be made anew. What is kept are auxiliary bytes of the request.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/tensor_set.h"
#include "server/cache/kv_cache.h"
#include "server/policy/cache_plan.h"
#include "server/policy/compressor_scratch.h"
#include "server/policy/policy.h"
#include "server/policy/score_steps.h"

namespace pkv {

class Evictor {
 public:
  struct Options {
    CacheGeometry geometry;
    int32_t q_heads = 0;
    int32_t interval_tokens = 0;
    TensorView value_factors;    // of the model, for policies that weigh values
    int64_t most_step_work = 0;  // of a step of a refresh, where its operations can be divided
  };
  // `backend` and `policy` must outlive the evictor; `plan` evicts_while_generating. RESOURCE_EXHAUSTED where the
  // backend has no memory for what is kept.
  static absl::StatusOr<std::unique_ptr<Evictor>> create(Backend& backend, const CachePolicy& policy,
                                                         const CachePlan& plan, const Options& options);
  // What create() allocates: per entry that lanes may have a score and a position, per lane its state, per layer the
  // newest queries,
  static uint64_t state_bytes(const CachePolicy& policy, const CachePlan& plan, const Options& options);
  // and beside that what a layer is scored in, where scores are made at intervals.
  static uint64_t scratch_bytes(const CachePolicy& policy, const CachePlan& plan, const Options& options);

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

  // ---- between tokens
  // Whether the next token has to wait: scores are made anew for it, at intervals, and where a full lane has no entry
  // with a score left to give up.
  bool needs_refresh();
  // Goes on with that, on the sequence's lanes; entries move to other slots. Returns the multiply-adds that were done:
  // no more than `most`, but one step is always done. needs_refresh().
  int64_t refresh(KvCache& cache, SequenceId sequence, int64_t most);

  // ---- for every token: first on the host
  // A token is to be written at `position`, the next one: every lane grows by one entry, or gives one up. Not while it
  // needs_refresh().
  void begin_token(int32_t position);
  // Marks the layer's lanes [kv_heads] of a step for the operations on them.
  void mark(int32_t layer, std::span<Lane> lanes) const;
  // What the step's operations have to know, the token being row `row` of the step.
  EvictingRow evicting_row(int32_t row) const;

  // ---- and then: the token went through all layers.
  void end_token();

  uint64_t evicted_entries() const { return evicted_; }

 private:
  struct LaneState {
    int32_t first = 0;  // of its entries in scores_ and positions_
    int32_t limit = 0;
    int32_t length = 0;
    int32_t scored = 0;  // entries with a score that may go; counted only where scores are made at intervals
    bool grows = false;  // for the token under way; between tokens none of a layer that is due
  };
  // Neighbouring lanes of a layer that are equally long and go through operations together.
  struct LaneRun {
    int32_t first_head = 0;
    int32_t heads = 0;
  };
  // Scores that are being made anew, run by run through the layers that are due.
  struct Refresh {
    LaneRun run;
    ObservedRows newest;  // what it is scored by
    LayerView view;       // of the run
    ScoreSteps steps;     // that are left of it
  };

  Evictor(Backend& backend, const CachePolicy& policy, const CachePlan& plan, const Options& options);
  static TensorSet<Evictor> tensors(const CachePolicy& policy, const CachePlan& plan, const Options& options);
  const LaneState& lane(int32_t layer, int32_t kv_head) const;
  LaneState& lane(int32_t layer, int32_t kv_head);
  // Sinks and pins before `position`: each lane has all of them.
  int32_t kept_before(int32_t position) const;
  bool is_due(int32_t layer) const;
  void begin_refresh();
  // The first run from `first_head` of `layer` on that has something to be done; none where no layer is due any more.
  void refresh_from(int32_t layer, int32_t first_head);
  void list_steps(Refresh& refresh);
  int64_t moving_work(int32_t layer) const;
  // The run that begins at `first_head`; without heads where there are no more.
  LaneRun lane_run(int32_t layer, int32_t first_head) const;
  ScoredLanes scored_lanes(const KvView& kv, const LaneRun& run) const;
  // What a policy scores a run of lanes by; cache, layer and length are the caller's.
  LayerView run_view(const LaneRun& run, const ObservedRows& rows) const;
  TensorView query_heads(const TensorView& tensor, const LaneRun& run, int32_t width) const;
  ScoreBuffers score_buffers(const LaneRun& run, int32_t entries) const;
  void order_lanes(const KvView& kv);
  void order_queries(int32_t layer);

  Backend& backend_;
  const CachePolicy& policy_;
  const DecodeRule rule_;
  Options options_;
  int32_t window_ = 0;
  std::vector<TokenSpan> kept_spans_;
  bool shares_model_ = false;                   // lanes' places and limits are known when all layers are cut
  std::vector<LaneState> lanes_;                // [layers * kv_heads]
  std::vector<bool> shares_;                    // [layers]: lanes' places and limits are known when the layer is cut
  std::vector<bool> due_;                       // [layers]: scores are made anew for the next token
  Tensor scores_;                               // [1, entries of all lanes]
  Tensor positions_;                            // likewise, i32
  Tensor states_;                               // [layers * kv_heads, lane_state_floats]
  Tensor ring_;                                 // [layers * W, Hq * d]
  Tensor ordered_q_;                            // [W, Hq * d]: of one layer, ascending by position
  Tensor lse_;                                  // [W, Hq]
  std::unique_ptr<CompressorScratch> scratch_;  // of refreshes; nullptr where there are none
  std::optional<Refresh> refresh_;              // under way
  bool looked_ = false;                         // whether the next token needs one
  int32_t position_ = 0;                        // of the token under way, or the next one
  int32_t tokens_ = 0;                          // written since the prompt
  uint64_t evicted_ = 0;
};

}  // namespace pkv
