// The meeting point of policy and cache while a prompt is read. For one request: collects the rows its policy observes
// while a layer is prefilled and, after the layer's last chunk, scores, selects, compacts and shrinks that layer's
// lanes before the next layer begins: in steps, so that others can have the backend in between. Waits for the backend
// only where data decides how many entries are kept.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/tensor_set.h"
#include "server/policy/cache_plan.h"
#include "server/policy/cascade.h"
#include "server/policy/compressor_scratch.h"
#include "server/policy/evictor.h"
#include "server/policy/layer_outcome.h"
#include "server/policy/policy.h"
#include "server/policy/selection.h"
#include "server/policy/value_refit.h"

namespace pkv {

class Compressor {
 public:
  struct Options {
    CacheGeometry geometry;
    int32_t q_heads = 0;
    int32_t prompt_tokens = 0;
    Budget budget;
    int64_t most_step_work = std::numeric_limits<int64_t>::max();  // multiply-adds, where a step can be divided
    RopeSpec rope;             // of the model, for rows that are observed at other positions than their own
    TensorView value_factors;  // of the model, for policies that weigh values
  };
  // `backend` and `policy` must outlive the compressor. RESOURCE_EXHAUSTED where the backend has no memory for what is
  // observed.
  static absl::StatusOr<std::unique_ptr<Compressor>> create(Backend& backend, const CachePolicy& policy,
                                                            const CachePlan& plan, const Options& options);

  // What create() allocates: observed queries, log-sum-exps, column sums and recalls.
  static uint64_t workspace_bytes(const CachePolicy& policy, const CachePlan& plan, const Options& options);

  // Rows [first_row, first_row + rows) of the prompt have just gone through a layer; q [rows, Hq * d], rotated. `kv`:
  // the layer's lanes [kv_heads] with these rows written. `lse` [rows, Hq]: of their attention to all that they see; no
  // data: not known.
  void observe(const TensorView& q, const KvView& kv, int32_t first_row, const TensorView& lse);

  // Multiply-adds of observe() for every row and every entry that it sees.
  static int64_t observed_pair_work(const CachePolicy& policy, const CachePlan& plan, const Options& options);
  // Of all steps of a layer's cut, about.
  static int64_t cut_work(const CachePolicy& policy, const CachePlan& plan, const Options& options);

  // The layer has seen the whole prompt: the lanes of sequence `from` hold prompt_tokens entries, slot == position.
  // Scores them and leaves what is kept in the lanes of every target: empty ones, or those of `from` as the only
  // target, which are cut in place so that their surplus pages go back. `scratch` is for at least prompt_tokens, and
  // nobody else's until the cut is done.
  struct Target {
    SequenceId sequence;
    Evictor* evictor;  // told what it has to know; or nullptr
  };
  struct Cut {
    KvCache& cache;
    SequenceId from;
    std::span<const Target> targets;
    CompressorScratch& scratch;
  };
  void begin_cut(const Cut& cut, int32_t layer);
  // The multiply-adds of the next step.
  int64_t next_step_work() const;
  // One step more; the outcome where it was the last. FAILED_PRECONDITION (recall_shortfall()) where min_recall is out
  // of reach; RESOURCE_EXHAUSTED where a target cannot have its pages.
  absl::StatusOr<std::optional<LayerOutcome>> cut_step(const Cut& cut, int32_t layer);

  // The recalls of the layers [0, outcomes.size()), all of them finished: adds the reads that bring them there.
  void read_recalls(std::span<LayerOutcome> outcomes, std::vector<Fetch>& reads) const;

 private:
  Compressor(Backend& backend, const CachePolicy& policy, const CachePlan& plan, const Options& options);
  static TensorSet<Compressor> tensors(const CachePolicy& policy, const CachePlan& plan, const Options& options);
  std::span<const int32_t> layer_budgets(int32_t layer) const;
  LayerView layer_view(const KvView& kv, std::span<const ObservedRows> observed) const;
  LayerOutcome shared_outcome(int32_t layer) const;
  bool cuts_layer(int32_t layer) const;
  bool scores_layer(int32_t layer) const;
  void list_observed_rows();
  void add_attention(const TensorView& q, const KvView& kv, int32_t first_row, const TensorView& lse);
  void keep_rows(const TensorView& q, int32_t first_row);
  LayerView scored_view(const KvView& kv, int32_t layer) const;
  void list_score_steps(const Cut& cut, int32_t layer);
  // The lanes keep counts[kv_head] entries: to the targets with them.
  absl::StatusOr<LayerOutcome> finish_cut(const Cut& cut, int32_t layer, std::vector<int32_t> counts);
  // Where values are refitted: one step of what comes after scoring.
  absl::StatusOr<std::optional<LayerOutcome>> refit_step(const Cut& cut, int32_t layer);
  static std::optional<ValueRefit::Shape> refit_shape(const CachePolicy& policy, const CachePlan& plan,
                                                      const Options& options);
  absl::StatusOr<std::vector<int32_t>> select(const Cut& cut, int32_t layer);
  absl::Status move_entries(const Cut& cut, const Target& target, int32_t layer, std::span<const int32_t> counts);
  // Where all layers share (Cascade): one step of a layer's cut, which cuts layers again that were cut before; the
  // outcome where it was the last. What a layer keeps in the end is known when all are cut.
  absl::StatusOr<std::optional<LayerOutcome>> share_step(const Cut& cut, int32_t layer);
  absl::Status add_to_cascade(const Cut& cut, int32_t layer);
  // Whether the layer's lanes give pages back when they are cut to what they keep now; in the end, any entries.
  bool is_worth_cutting(int32_t layer, bool in_the_end) const;
  void cut_again(const Cut& cut, int32_t layer);
  // The slots of the entries that the layer's lanes keep, to scratch.kept and scratch.counts.
  void upload_kept(const Cut& cut, int32_t layer);
  // Room in the page table for what lanes have and `growth` more entries.
  void set_lane_limits(const Cut& cut, int32_t growth);
  void end_sharing(const Cut& cut);
  SelectionInput selection_input(const Cut& cut, int32_t layer) const;
  void keep_newest_rows(int32_t layer, Evictor& evictor);
  void tell_evictor(int32_t layer, const CompressorScratch& scratch, std::span<const int32_t> counts, Evictor& evictor);

  Backend& backend_;
  const CachePolicy& policy_;
  const CachePlan& plan_;
  Options options_;
  std::vector<ObservationRow> rows_;
  std::vector<ObservedRows> observed_;         // of observed_q_
  int32_t rows_seen_ = 0;                      // of this layer so far
  std::optional<ScoreSteps> steps_;            // of the cut under way
  std::optional<Cascade> cascade_;             // where all layers share
  int32_t recut_ = 0;                          // the next layer that may be cut again
  std::unique_ptr<ValueRefit> refit_;          // where values are refitted
  std::vector<int32_t> refit_counts_;          // of the layer under way, once they are known
  std::optional<LayerOutcome> refit_outcome_;  // of it, once its entries are moved
  Tensor observed_q_;                          // [observation rows, Hq * d]
  Tensor lse_;                                 // [observation rows, or rows taken at once, Hq]
  Tensor sums_;                                // [Hq, n]: column sums of this layer, where every row is observed
  Tensor recalls_;  // [layers, kv_heads] f64: of the layers that were cut, where attention is observed
};

}  // namespace pkv
