// Sparse attention of one prompt: chooses every layer's pattern by what the newest rows attend to, and measures on rows
// here and there what it loses (docs/adr/0047-sparse-prefill.md). For one request, while its prompt is read.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "kernels/tensor_set.h"
#include "server/engine/request_result.h"

namespace pkv {

constexpr int32_t kLeastPrefillTokens = 2 * kSparseBlock;

// Sizes of a sparse prefill, all of which follow from the request.
struct SparseShape {
  int32_t layers = 0;  // whose rows attend by patterns
  int32_t q_heads = 0;
  int32_t kv_heads = 0;
  int32_t head_dim = 0;
  int32_t tokens = 0;           // of the prompt
  int32_t attended_tokens = 0;  // PolicySpec::prefill_tokens

  int32_t columns() const { return attended_tokens / 2; }
  // The block of a row itself and the one before are seen anyway.
  int32_t bands() const { return 2 + attended_tokens / 2 / kSparseBlock; }
  int32_t dense_from() const;  // of the prompt's rows; those from here on choose the patterns
  // Entries that a row sees at most, where it does not see all.
  int32_t most_seen() const { return columns() + (bands() + 1) * kSparseBlock; }
  // Whether there is a row that does not see everything. Without one nothing else here is to be asked for.
  bool leaves_out() const;
};

class SparsePrefill {
 public:
  // RESOURCE_EXHAUSTED where the backend has no memory for it. `backend` must outlive this.
  static absl::StatusOr<std::unique_ptr<SparsePrefill>> create(Backend& backend, const SparseShape& shape);
  static uint64_t bytes(const SparseShape& shape) { return tensors(shape).bytes(); }
  // Multiply-adds of all of a layer's steps.
  static int64_t layer_work(const SparseShape& shape);

  // ---- a layer, in this order
  int32_t keys() const { return keys_; }  // rows whose keys and values are written
  void add_keys(int32_t rows) { keys_ += rows; }
  // The rows [dense_from(), tokens), once all keys are there: the next of their queries, q [rows, Hq * d].
  int32_t queries() const { return queries_taken_; }
  bool has_queries() const { return shape_.dense_from() + queries_taken_ == shape_.tokens; }
  void take_queries(const TensorView& q);
  // Observes some of them; the last step chooses the pattern. `kv`: the layer's lanes [kv_heads], whole.
  int64_t step_work() const;
  void step(const KvView& kv);
  bool is_chosen() const { return chosen_; }
  SparsePattern pattern() const;
  // All its rows have attended.
  void end_layer();

  // ---- what is lost: rows are measured that end a run of kSampleInterval
  // Of rows from `first` on the most, up to `rows`, among which no measured row has another behind it.
  static int32_t rows_to_sample(int32_t first, int32_t rows);
  // Measures the last row of a prefill step, args as for the whole step, if it is one of them.
  void measure(const AttendArgs& step, int32_t row);

  // ---- when the prompt is done
  void read(std::vector<Fetch>& reads);
  PrefillReport report() const;  // once these are read

 private:
  SparsePrefill(Backend& backend, const SparseShape& shape) : backend_(backend), shape_(shape) {}
  static TensorSet<SparsePrefill> tensors(const SparseShape& shape);
  static int32_t samples(const SparseShape& shape);

  Backend& backend_;
  const SparseShape shape_;
  int32_t layer_ = 0;
  int32_t keys_ = 0, queries_taken_ = 0, observed_ = 0;  // rows
  bool chosen_ = false;
  int32_t measured_ = 0;    // rows of all layers
  Tensor queries_;          // [rows, Hq * d]
  Tensor lse_;              // [rows of a step, Hq]
  Tensor column_masses_;    // [Hq, n]
  Tensor diagonal_masses_;  // [Hq, n]
  Tensor columns_, bands_;  // the pattern's
  Tensor pairs_;            // [layers, Hkv] f64
  Tensor seen_lse_;         // [layers * samples, Hq] of measured rows, by the pattern
  Tensor whole_lse_;        // [layers * samples, Hq] and of all that they could see
  Tensor unused_out_;       // [1, Hq * d]
  std::vector<double> pairs_read_;
  std::vector<float> seen_read_, whole_read_;
};

}  // namespace pkv
