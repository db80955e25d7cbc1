// The reference backend with a fence around its memory: no address of it can be read or written but while one of its
// operations runs, and operations take no other memory. Host code that touches backend memory, which works where the
// two are one, crashes here. What is staged has two sides, and the device's knows what was committed.
#pragma once

#include <memory>
#include <span>
#include <string_view>

#include "tests/support/forwarding_backend.h"

namespace pkv::test {

class FencedBackend : public ForwardingBackend {
 public:
  FencedBackend();
  ~FencedBackend() override;

  absl::StatusOr<Tensor> allocate(int64_t rows, int64_t cols, DType dtype) override;
  absl::StatusOr<std::shared_ptr<std::byte>> allocate_lazy(size_t bytes) override;
  absl::StatusOr<Staged> allocate_staged(size_t bytes) override;
  void commit(const Staged& staged, size_t offset, size_t bytes) override;

  // Those that take memory by plain pointers, which must be fenced.
  void embed(const Weight& table, const int32_t* ids, const TensorView& out) override;
  void rope(const TensorView& x, const int32_t* positions, const RopeSpec& spec) override;
  void set_page_ids(int32_t* page_ids, const PageEdit* edits, int32_t count) override;
  void write_kv(const TensorView& k, const TensorView& v, const int32_t* positions, const KvView& kv,
                const RowSpans& spans, int32_t kv_heads) override;
  void attend(const AttendArgs& args) override;
  void row_lse(const ObserveArgs& args, const TensorView& lse) override;
  void column_mass(const ObserveArgs& args, const TensorView& lse, const TensorView& sums,
                   const TensorView& squares) override;
  void diagonal_mass(const ObserveArgs& args, const TensorView& lse, const TensorView& sums) override;
  void gather(const KvView& kv, int32_t from, const TensorView& kept, const TensorView& counts, int32_t to) override;
  void value_norms(const KvView& kv, int32_t first_lane, int32_t kv_heads, const TensorView& factors,
                   const TensorView& norms) override;
  void key_norms(const KvView& kv, int32_t first_lane, const TensorView& norms) override;
  void key_similarity(const KvView& kv, int32_t first_lane, const TensorView& unit_sums,
                      const TensorView& cosines) override;
  void turn_keys(const KvView& kv, int32_t first_lane, int32_t lanes, int32_t first_slot, int32_t delta,
                 const RopeSpec& spec) override;
  void write_turned(const TurnedRows& rows, const RopeSpec& spec) override;
  void choose_slots(const EvictingStep& step) override;
  void score_new_entries(const EvictingStep& step, const TensorView& k) override;
  void keep_queries(const EvictingStep& step, const TensorView& q) override;
  void add_attention(const EvictingStep& step, const TokenQueries& queries) override;
  void set_scores(const ScoredLanes& lanes, const TensorView& scores, int32_t newest) override;
  void sample_rows(const SampleArgs& args) override;
  void token_logprobs(const LogprobArgs& args) override;
  void order_entries(const ScoredLanes& lanes, const TensorView& order, const TensorView& counts) override;

 protected:
  void run(std::string_view operation, absl::FunctionRef<void()> forward) override;

 private:
  class Yard;  // the fenced memory

  void require(const void* memory, size_t bytes) const;
  void require(const KvView& kv) const;
  void require(const RowSpans& spans) const;
  void require(const RopeSpec& spec) const;
  void require(const EvictingStep& step) const;
  void require(const ScoredLanes& lanes) const;

  std::shared_ptr<Yard> yard_;  // that of its tensors too
};

}  // namespace pkv::test
