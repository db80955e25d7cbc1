// A machine that computes nothing, and a model of any shape on it: scheduler, admission, cache, policies and eviction
// run as they are, at the speed of their own bookkeeping.
//
// Real are memory, copies, the positions that write_kv() and gather() record, score_entries(), selection and recall,
// and which entries are evicted. Dense operations and attention leave their outputs as they were, which for fresh
// memory is zeros; so are all logits, which nothing edits. Scores are made up from row and column, so that selections
// are neither sorted nor all alike.
#pragma once

#include <array>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/host_backend.h"
#include "kernels/reference/reference_backend.h"
#include "server/model/model.h"

namespace pkv::test {

class NullBackend final : public HostBackend {
 public:
  std::string_view name() const override { return "null"; }
  std::string description() const override { return "null (computes nothing)"; }

  absl::StatusOr<Tensor> allocate(int64_t rows, int64_t cols, DType dtype) override;
  absl::StatusOr<std::unique_ptr<Weight>> prepare_weight(const WeightSource& source) override;

  void embed(const Weight&, const int32_t*, const TensorView&) override {}
  void rms_norm(const TensorView&, const TensorView&, float, const TensorView&) override {}
  void linear(const TensorView&, const Weight&, bool, Phase, const TensorView&) override {}
  void add_bias(const TensorView&, const TensorView&) override {}
  void rope(const TensorView&, const int32_t*, const RopeSpec&) override {}
  void turn_rows(const TensorView&, int32_t, const RopeSpec&) override {}
  void silu_mul(const TensorView&, const TensorView&) override {}

  void write_kv(const TensorView& k, const TensorView& v, const int32_t* positions, const KvView& kv,
                const RowSpans& spans, int32_t kv_heads) override;
  void attend(const AttendArgs&) override {}
  void row_lse(const ObserveArgs&, const TensorView&) override {}
  void column_mass(const ObserveArgs&, const TensorView&, const TensorView&, const TensorView&) override {}
  void value_norms(const KvView&, int32_t, int32_t, const TensorView&, const TensorView&) override {}
  void weigh_groups(const TensorView& squares, const TensorView& weights, float scale, const TensorView& out) override;
  void merge_scores(const TensorView&, bool, const TensorView&) override {}
  void reduce_groups(const TensorView& sums, GroupReduce reduce, const TensorView& out) override;
  void pool_scores(const TensorView& scores, PoolKind kind, int32_t kernel, const TensorView& out) override;
  void score_entries(const EntryScoring& scoring, const TensorView& scores) override;
  void select_top(const TensorView& scores, int32_t window, const TensorView& counts, const TensorView& kept) override;
  void share_layer(const TensorView& scores, const LayerShare& share, const TensorView& counts) override;
  void count_for_recall(const TensorView& scores, const TensorView& mass, const RecallShare& share,
                        const TensorView& counts, const TensorView& recalls) override;
  void recall(const TensorView& mass, const TensorView& kept, const TensorView& counts,
              const TensorView& recalls) override;
  void gather(const KvView& kv, int32_t from, const TensorView& kept, const TensorView& counts, int32_t to) override;
  void key_norms(const KvView& kv, int32_t first_lane, const TensorView& norms) override;
  void key_similarity(const KvView& kv, int32_t first_lane, const TensorView& unit_sums,
                      const TensorView& cosines) override;
  void turn_keys(const KvView&, int32_t, int32_t, int32_t, int32_t, const RopeSpec&) override {}
  void write_turned(const TurnedRows&, const RopeSpec&) override {}

  void take_columns(const TensorView& from, const TensorView& columns, const TensorView& out) override {
    reference_.take_columns(from, columns, out);
  }
  void choose_slots(const EvictingStep& step) override { reference_.choose_slots(step); }
  void score_new_entries(const EvictingStep& step, const TensorView& k) override {
    reference_.score_new_entries(step, k);
  }
  void add_attention(const EvictingStep&, const TokenQueries&) override {}
  void set_scores(const ScoredLanes& lanes, const TensorView& scores, int32_t newest) override {
    reference_.set_scores(lanes, scores, newest);
  }
  void order_entries(const ScoredLanes& lanes, const TensorView& order, const TensorView& counts) override {
    reference_.order_entries(lanes, order, counts);
  }
  void sample_rows(const SampleArgs& args) override;
  void token_logprobs(const LogprobArgs& args) override;
  void compare_rows(const TensorView&, const TensorView&, const TensorView& results) override;

 private:
  ReferenceBackend reference_;  // what it does once a layer of a prompt, and for evictions
  std::vector<int32_t> moved_;  // reused by select_top() and gather()
};

// A model of `shape` that writes cache entries and nothing else. Every logit is 0.
class NullModel final : public Model {
 public:
  NullModel(NullBackend& backend, ModelShape shape) : Model(backend), shape_(std::move(shape)) {}

  const ModelShape& shape() const override { return shape_; }
  size_t weight_bytes() const override { return 0; }
  RopeSpec rope() const override { return {.inv_freq = inv_freq_.data(), .pairs = 1, .head_dim = shape_.head_dim}; }
  void embed(const int32_t*, const TensorView&) const override {}
  void run_layer(const StepPlan& plan, int32_t layer, const TensorView& x, StepScratch& scratch,
                 const LayerRun& run) const override;
  void logits(const TensorView&, Phase, const TensorView&, const TensorView&) const override {}

 private:
  ModelShape shape_;
  std::array<float, 1> inv_freq_{1.0f};
};

}  // namespace pkv::test
