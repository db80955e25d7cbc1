// Runs the model for sequences: one prefill unit, or one decode step. Owns the cache and every tensor that sequences
// share. Decides nothing: which sequence and when is the scheduler's part.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/cache/kv_cache.h"
#include "server/engine/engine.h"
#include "server/engine/sequence.h"
#include "server/model/model.h"
#include "server/policy/compressor.h"

namespace pkv {

class Stepper {
 public:
  static absl::StatusOr<std::unique_ptr<Stepper>> create(const Model& model, const EngineOptions& options);

  KvCache& cache() { return *cache_; }
  const KvCache& cache() const { return *cache_; }
  // Of the tensors that all sequences share.
  uint64_t shared_workspace_bytes() const;

  // Allocates the sequence's workspace and opens its lanes. RESOURCE_EXHAUSTED where the machine has no such memory.
  absl::Status start_prefill(Sequence& sequence);
  // The sequence's next unit: one chunk of rows through one layer, or, where the prompt's own log-probabilities are
  // asked for, one tile of rows through the output head. Returns its work in rows x layers. After the last unit the
  // sequence has its first token and phase kDecode, or is done. INTERNAL where the cache has no slots, which its
  // reservation excludes.
  absl::StatusOr<int64_t> prefill_unit(Sequence& sequence);
  // One more token for each: all in phase kDecode and not done. One that fails gets its `failure`; the others go on.
  void decode(std::span<Sequence* const> sequences);
  // Gives everything the sequence holds back.
  void release(Sequence& sequence);

 private:
  Stepper(const Model& model, const EngineOptions& options) : model_(model), options_(options) {}
  absl::Status allocate();

  bool scores_prompt(const Sequence& sequence) const { return sequence.request->prompt_logprobs; }
  absl::StatusOr<int64_t> layer_unit(Sequence& sequence);
  int64_t scoring_unit(Sequence& sequence);
  void finish_layer(Sequence& sequence);
  void finish_prompt(Sequence& sequence);
  void plan_prefill(const Sequence& sequence, int32_t rows);

  void decode_rows(std::span<Sequence* const> sequences);
  void plan_decode(std::span<Sequence* const> sequences);
  bool append_row(Sequence& sequence);

  // Logits of x [R <= kLogitsRows, D] in host_logits_, and their log-sum-exp in host_lse_ if wanted.
  void compute_logits(const TensorView& x, Phase phase, bool with_lse);
  std::span<float> logits_row(int64_t row);
  void sample_row(Sequence& sequence, int64_t row);

  const Model& model_;
  EngineOptions options_;
  std::unique_ptr<KvCache> cache_;
  std::unique_ptr<CompressorScratch> compressor_scratch_;
  StepScratch scratch_;
  Tensor decode_x_;  // [decode rows, D]
  Tensor logits_;    // [kLogitsRows, V]
  Tensor lse_;       // [kLogitsRows, 1]
  std::vector<float> host_logits_, host_lse_;
  StepPlan plan_;                    // reused from step to step
  std::vector<Sequence*> decoding_;  // of the step under way
};

}  // namespace pkv
