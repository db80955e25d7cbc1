// The only meeting point of policy and cache. For one request: collects the rows its policy observes while a layer is
// prefilled and, after the layer's last chunk, scores, selects, compacts and shrinks that layer's lanes before the next
// layer begins.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "server/policy/policy.h"

namespace pkv {

// What became of one layer.
struct LayerOutcome {
  int32_t budget_tokens = 0;                         // largest lane budget of the layer
  std::vector<int32_t> kept;                         // [kv_heads] entries straight after prefill
  std::vector<double> recall;                        // [kv_heads]; empty: nothing was observed
  std::vector<std::vector<int32_t>> kept_positions;  // [kv_heads], ascending; only if asked for
};

struct CompressorOptions {
  CacheGeometry geometry;
  int32_t q_heads = 0;
  int32_t prompt_tokens = 0;
  bool record_positions = false;
};

// Score tensors for prompts of up to `max_tokens`, shared by all requests of the engine thread. RESOURCE_EXHAUSTED
// where the backend has no memory for them.
class CompressorScratch {
 public:
  static absl::StatusOr<std::unique_ptr<CompressorScratch>> create(Backend& backend, int32_t q_heads, int32_t kv_heads,
                                                                   int32_t max_tokens);
  size_t bytes() const;

  Tensor sums;    // [Hq, max_tokens]
  Tensor mass;    // [Hkv, max_tokens]
  Tensor scores;  // [Hkv, max_tokens]
  Tensor kept;    // [Hkv, max_tokens] i32
  int32_t max_tokens = 0;

 private:
  CompressorScratch() = default;
};

class Compressor {
 public:
  // `backend` and `policy` must outlive the compressor. RESOURCE_EXHAUSTED where the backend has no memory for the
  // observed queries.
  static absl::StatusOr<std::unique_ptr<Compressor>> create(Backend& backend, const CachePolicy& policy,
                                                            const CompressorOptions& options);

  const std::vector<int32_t>& lane_budgets() const { return lane_budgets_; }
  bool compresses() const { return compresses_; }  // false: everything is kept, and nothing is observed
  size_t workspace_bytes() const;                  // of the observed queries and their log-sum-exps

  // Rows [first_row, first_row + rows) of the prompt have just gone through a layer; q [rows, Hq * d], rotated.
  void observe(const TensorView& q, int32_t first_row);
  // The layer has seen the whole prompt: its lanes hold prompt_tokens entries, slot == position. Scores, selects,
  // compacts and shrinks them. `scratch` is for at least prompt_tokens.
  LayerOutcome finish_layer(KvCache& cache, SequenceId sequence, int32_t layer, CompressorScratch& scratch);

 private:
  Compressor(Backend& backend, const CachePolicy& policy, const CompressorOptions& options);
  std::span<const int32_t> layer_budgets(int32_t layer) const;
  LayerOutcome keep_everything(int32_t layer) const;
  void score_layer(const KvView& kv, const CompressorScratch& scratch);
  void select(std::span<const int32_t> budgets, const CompressorScratch& scratch);
  void select_lanes(int32_t first_lane, int32_t lanes, int32_t budget, const CompressorScratch& scratch);

  Backend& backend_;
  const CachePolicy& policy_;
  CompressorOptions options_;
  std::vector<int32_t> lane_budgets_;  // [layers * kv_heads]
  std::vector<ObservationRow> rows_;
  std::vector<int32_t> visible_;  // [observation rows] slots each sees
  size_t rows_seen_ = 0;          // of this layer so far
  Tensor observed_q_;             // [observation rows, Hq * d]
  Tensor lse_;                    // [observation rows, Hq]
  bool compresses_ = false;
};

}  // namespace pkv
