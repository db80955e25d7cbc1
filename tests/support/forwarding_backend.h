// A backend that has another one do everything, with one place around all its operations and one before all its
// allocations: what counts, fails or fences is a few lines on top.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "absl/functional/function_ref.h"
#include "kernels/backend.h"

namespace pkv::test {

class ForwardingBackend : public Backend {
 public:
  explicit ForwardingBackend(std::unique_ptr<Backend> inner) : inner_(std::move(inner)) {}

  std::string_view name() const override { return inner_->name(); }
  std::string description() const override { return inner_->description(); }
  BackendTraits traits() const override { return inner_->traits(); }
  absl::Status supports(const AttentionShape& shape) const override { return inner_->supports(shape); }
  absl::Status status() const override { return inner_->status(); }
  std::optional<DeviceMemory> device_memory() const override { return inner_->device_memory(); }
  int64_t mark() override { return inner_->mark(); }
  double elapsed(int64_t from, int64_t to) const override { return inner_->elapsed(from, to); }
  int32_t host_threads() const override { return inner_->host_threads(); }
  void run_on_host(int64_t items, int64_t work, HostBody body) override { inner_->run_on_host(items, work, body); }

  absl::StatusOr<Tensor> allocate(int64_t rows, int64_t cols, DType dtype) override;
  absl::StatusOr<std::shared_ptr<std::byte>> allocate_lazy(size_t bytes) override;
  absl::StatusOr<Staged> allocate_staged(size_t bytes) override;
  void commit(const Staged& staged, size_t offset, size_t bytes) override;
  void upload(const TensorView& to, const void* from) override;
  void fill(const TensorView& to, float value) override;
  void copy(const TensorView& to, const TensorView& from) override;
  using Backend::fetch;
  void fetch(std::span<const Fetch> reads) override;
  void sync() override;
  absl::StatusOr<std::unique_ptr<Weight>> prepare_weight(const WeightSource& source) override;

  void embed(const Weight& table, const int32_t* ids, const TensorView& out) override;
  void rms_norm(const TensorView& x, const TensorView& gain, float eps, const TensorView& out) override;
  void linear(const TensorView& x, const Weight& weight, bool accumulate, Phase phase, const TensorView& out) override;
  void add_bias(const TensorView& x, const TensorView& bias) override;
  void rope(const TensorView& x, const int32_t* positions, const RopeSpec& spec) override;
  void turn_rows(const TensorView& x, int32_t delta, const RopeSpec& spec) override;
  void silu_mul(const TensorView& gate, const TensorView& up) override;

  void set_page_ids(int32_t* page_ids, const PageEdit* edits, int32_t count) override;
  void write_kv(const TensorView& k, const TensorView& v, const int32_t* positions, const KvView& kv,
                const RowSpans& spans, int32_t kv_heads) override;
  void attend(const AttendArgs& args) override;
  void row_lse(const ObserveArgs& args, const TensorView& lse) override;
  void column_mass(const ObserveArgs& args, const TensorView& lse, const TensorView& sums,
                   const TensorView& squares) override;
  void diagonal_mass(const ObserveArgs& args, const TensorView& lse, const TensorView& sums) override;
  void choose_pattern(const PatternMasses& masses, const SparsePattern& pattern, const TensorView& pairs) override;
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
  void keep_queries(const EvictingStep& step, const TensorView& q) override;
  void add_attention(const EvictingStep& step, const TokenQueries& queries) override;
  void set_scores(const ScoredLanes& lanes, const TensorView& scores, int32_t newest) override;
  void order_entries(const ScoredLanes& lanes, const TensorView& order, const TensorView& counts) override;

  void sample_rows(const SampleArgs& args) override;
  void token_logprobs(const LogprobArgs& args) override;
  void compare_rows(const TensorView& logits, const TensorView& baseline, const TensorView& results) override;

 protected:
  // Around every operation, uploads, fetches and sync() included: it is done where `forward` is called. `operation` is
  // its name in Backend.
  virtual void run(std::string_view operation, absl::FunctionRef<void()> forward);
  // Before every allocation; an error is its answer. `call` is its name in Backend.
  virtual absl::Status reserve(std::string_view call, size_t bytes);

  Backend& inner() { return *inner_; }

 private:
  std::unique_ptr<Backend> inner_;
};

}  // namespace pkv::test
