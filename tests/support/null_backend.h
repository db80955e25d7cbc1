// A machine that computes nothing, and a model of any shape on it: scheduler, admission, cache, policies and eviction
// run as they are, at the speed of their own bookkeeping.
//
// Real are memory, copies, the positions that write_kv() and gather() record, score_entries() and select_top(). Dense
// operations and attention leave their outputs as they were, which for fresh memory is zeros. Scores are made up from
// row and column, so that selections are neither sorted nor all alike.
#pragma once

#include <array>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/host_backend.h"
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
  void silu_mul(const TensorView&, const TensorView&) override {}
  void log_sum_exp(const TensorView&, const TensorView&) override {}

  void write_kv(const TensorView& k, const TensorView& v, const int32_t* positions, const KvView& kv,
                const RowSpans& spans, int32_t kv_heads) override;
  void attend(const AttendArgs&) override {}
  void row_lse(const ObserveArgs&, const TensorView&) override {}
  void column_mass(const ObserveArgs&, const TensorView&, const TensorView&, const TensorView&) override {}
  void reduce_groups(const TensorView& sums, GroupReduce reduce, const TensorView& out) override;
  void pool_scores(const TensorView& scores, PoolKind kind, int32_t kernel, const TensorView& out) override;
  void score_entries(const EntryScoring& scoring, const TensorView& scores) override;
  void select_top(const TensorView& scores, int32_t count, const TensorView& kept) override;
  void gather(const KvView& kv, int32_t from, const TensorView& kept, int32_t count, int32_t to) override;
  void key_norms(const KvView& kv, int32_t first_lane, const TensorView& norms) override;
  void key_similarity(const KvView& kv, int32_t first_lane, const TensorView& unit_sums,
                      const TensorView& cosines) override;
  void turn_keys(const KvView&, int32_t, int32_t, int32_t, int32_t, const RopeSpec&) override {}

 private:
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
                 int32_t outputs) const override;
  void logits(const TensorView&, Phase, const TensorView&, const TensorView&) const override {}

 private:
  ModelShape shape_;
  std::array<float, 1> inv_freq_{1.0f};
};

}  // namespace pkv::test
