// The backend for x86-64 CPUs (and, in portable code, any other): SIMD kernels chosen at run time, one pool of threads.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/cpu/attention/attention.h"
#include "kernels/cpu/elementwise/rope_table.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/linear/linear.h"
#include "kernels/cpu/linear/packed_weight.h"
#include "kernels/cpu/path_choice.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/host_backend.h"

namespace pkv {

class CpuBackend final : public HostBackend {
 public:
  CpuBackend(CpuPaths paths, bool exact, int32_t threads);

  std::string_view name() const override { return "cpu"; }
  std::string description() const override;
  BackendTraits traits() const override { return {.sparse_attention = true}; }
  absl::Status supports(const AttentionShape& shape) const override { return CpuAttention::supports(shape); }

  absl::StatusOr<std::unique_ptr<Weight>> prepare_weight(const WeightSource& source) override;

  int32_t host_threads() const override { return pool_.threads(); }
  void run_on_host(int64_t items, int64_t work, HostBody body) override;

  void embed(const Weight& table, const int32_t* ids, const TensorView& out) override;
  void rms_norm(const TensorView& x, const TensorView& gain, float eps, const TensorView& out) override;
  void linear(const TensorView& x, const Weight& weight, bool accumulate, Phase phase, const TensorView& out) override;
  void add_bias(const TensorView& x, const TensorView& bias) override;
  void rope(const TensorView& x, const int32_t* positions, const RopeSpec& spec) override;
  void turn_rows(const TensorView& x, int32_t delta, const RopeSpec& spec) override;
  void silu_mul(const TensorView& gate, const TensorView& up) override;

  void write_kv(const TensorView& k, const TensorView& v, const int32_t* positions, const KvView& kv,
                const RowSpans& spans, int32_t kv_heads) override;
  void attend(const AttendArgs& args) override;

  void row_lse(const ObserveArgs& args, const TensorView& lse) override;
  void observe(const ObserveArgs& args, const TensorView& lse, const TensorView& sums,
               const TensorView& squares) override {
    attention_.observe(args, lse, sums, squares);
  }
  void observe_token(const ObserveArgs& args, const TensorView& lse, const TensorView& sums) override {
    attention_.observe_exactly(args, lse, sums);
  }
  void column_mass(const ObserveArgs& args, const TensorView& lse, const TensorView& sums,
                   const TensorView& squares) override;
  void diagonal_mass(const ObserveArgs& args, const TensorView& lse, const TensorView& sums) override {
    attention_.diagonal_mass(args, lse, sums);
  }
  void value_norms(const KvView& kv, int32_t first_lane, int32_t kv_heads, const TensorView& factors,
                   const TensorView& norms) override;
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
  void gather(const KvView& kv, int32_t from, const TensorView& kept, const TensorView& counts, int32_t to) override;
  void key_norms(const KvView& kv, int32_t first_lane, const TensorView& norms) override;
  void key_similarity(const KvView& kv, int32_t first_lane, const TensorView& unit_sums,
                      const TensorView& cosines) override;
  void turn_keys(const KvView& kv, int32_t first_lane, int32_t lanes, int32_t first_slot, int32_t delta,
                 const RopeSpec& spec) override;
  void write_turned(const TurnedRows& rows, const RopeSpec& spec) override;

  void take_columns(const TensorView& from, const TensorView& columns, const TensorView& out) override;
  void choose_slots(const EvictingStep& step) override;
  void score_new_entries(const EvictingStep& step, const TensorView& k) override;
  void set_scores(const ScoredLanes& lanes, const TensorView& scores, int32_t newest) override;
  void order_entries(const ScoredLanes& lanes, const TensorView& order, const TensorView& counts) override;
  void sample_rows(const SampleArgs& args) override;
  void token_logprobs(const LogprobArgs& args) override;
  void compare_rows(const TensorView& logits, const TensorView& baseline, const TensorView& results) override;

 private:
  CpuPaths paths_;
  bool exact_;
  ThreadPool pool_;
  ElementwiseKernels elementwise_;
  LinearRunner linear_;
  CpuAttention attention_;
  RopeTable rope_table_;
  static constexpr size_t kTurnTables = 4096;
  // Of turn_rows(), one row each, by the lowest bits of delta: rows of a prompt are turned alike in every layer.
  std::vector<RopeTable> turn_tables_{kTurnTables};
  std::vector<int32_t> turned_by_, turned_positions_;  // [rows] of write_turned()
  std::vector<Lane> turned_lanes_;
  WeightArena arena_;
};

// Errors as make_backend's.
absl::StatusOr<std::unique_ptr<Backend>> make_cpu_backend(const BackendOptions& options);

}  // namespace pkv
