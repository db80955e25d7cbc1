// The oracle: every operation as plain loops, one thread, always exact. Weights are dequantised to float32 when
// prepared; every sum, product and exponential is computed in float64 and rounded to float32 once, where it is stored.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "kernels/host_backend.h"

namespace pkv {

class ReferenceBackend : public HostBackend {
 public:
  std::string_view name() const override { return "reference"; }
  std::string description() const override { return "reference (plain loops, float64 sums, one thread)"; }
  BackendTraits traits() const override { return {.sparse_attention = true}; }

  // reference_backend.cpp
  absl::StatusOr<std::unique_ptr<Weight>> prepare_weight(const WeightSource& source) override;

  // dense_ops.cpp
  void embed(const Weight& table, const int32_t* ids, const TensorView& out) override;
  void rms_norm(const TensorView& x, const TensorView& gain, float eps, const TensorView& out) override;
  void linear(const TensorView& x, const Weight& weight, bool accumulate, Phase phase, const TensorView& out) override;
  void add_bias(const TensorView& x, const TensorView& bias) override;
  void rope(const TensorView& x, const int32_t* positions, const RopeSpec& spec) override;
  void turn_rows(const TensorView& x, int32_t delta, const RopeSpec& spec) override;
  void silu_mul(const TensorView& gate, const TensorView& up) override;

  // attention_ops.cpp
  void write_kv(const TensorView& k, const TensorView& v, const int32_t* positions, const KvView& kv,
                const RowSpans& spans, int32_t kv_heads) override;
  void attend(const AttendArgs& args) override;
  void row_lse(const ObserveArgs& args, const TensorView& lse) override;
  void column_mass(const ObserveArgs& args, const TensorView& lse, const TensorView& sums,
                   const TensorView& squares) override;
  void diagonal_mass(const ObserveArgs& args, const TensorView& lse, const TensorView& sums) override;

  // selection_ops.cpp
  void weigh_groups(const TensorView& squares, const TensorView& weights, float scale, const TensorView& out) override;
  void merge_scores(const TensorView& other, bool by_mean, const TensorView& scores) override;
  void reduce_groups(const TensorView& sums, GroupReduce reduce, const TensorView& out) override;
  void pool_scores(const TensorView& scores, PoolKind kind, int32_t kernel, const TensorView& out) override;
  void score_entries(const EntryScoring& scoring, const TensorView& scores) override;
  void select_top(const TensorView& scores, int32_t window, const TensorView& counts, const TensorView& kept) override;
  void share_layer(const TensorView& scores, const LayerShare& share, const TensorView& counts) override;
  void count_for_recall(const TensorView& scores, const TensorView& mass, const RecallShare& share,
                        const TensorView& counts, const TensorView& recalls) override;
  void recall(const TensorView& mass, const TensorView& kept, const TensorView& counts,
              const TensorView& recalls) override;

  // key_ops.cpp
  void gather(const KvView& kv, int32_t from, const TensorView& kept, const TensorView& counts, int32_t to) override;
  void value_norms(const KvView& kv, int32_t first_lane, int32_t kv_heads, const TensorView& factors,
                   const TensorView& norms) override;
  void key_norms(const KvView& kv, int32_t first_lane, const TensorView& norms) override;
  void key_similarity(const KvView& kv, int32_t first_lane, const TensorView& unit_sums,
                      const TensorView& cosines) override;
  void turn_keys(const KvView& kv, int32_t first_lane, int32_t lanes, int32_t first_slot, int32_t delta,
                 const RopeSpec& spec) override;

  // eviction_ops.cpp
  void write_turned(const TurnedRows& rows, const RopeSpec& spec) override;
  void take_columns(const TensorView& from, const TensorView& columns, const TensorView& out) override;
  void choose_slots(const EvictingStep& step) override;
  void score_new_entries(const EvictingStep& step, const TensorView& k) override;
  void set_scores(const ScoredLanes& lanes, const TensorView& scores, int32_t newest) override;
  void order_entries(const ScoredLanes& lanes, const TensorView& order, const TensorView& counts) override;
  // sampling_ops.cpp
  void sample_rows(const SampleArgs& args) override;
  void token_logprobs(const LogprobArgs& args) override;
  void compare_rows(const TensorView& logits, const TensorView& baseline, const TensorView& results) override;
};

// A weight as dense float32 rows.
class ReferenceWeight : public Weight {
 public:
  ReferenceWeight(int64_t rows, int64_t cols, std::unique_ptr<float[]> values)
      : Weight(rows, cols), values_(std::move(values)) {}
  size_t bytes() const override { return static_cast<size_t>(rows() * cols()) * sizeof(float); }
  const float* row(int64_t index) const { return values_.get() + index * cols(); }

 private:
  std::unique_ptr<float[]> values_;
};

// Sum of a[i] * b[i] in float64 (where each product is exact), in an order that depends on `count` only.
double reference_dot(const float* a, const float* b, int64_t count);

std::unique_ptr<Backend> make_reference_backend();

}  // namespace pkv
