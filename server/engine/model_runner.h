// Runs the model for sequences: one prefill unit, or one decode step. Owns the cache and every tensor that sequences
// share. Decides nothing: which sequence and when is the scheduler's part.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/cache/step_buffer.h"
#include "server/engine/decode_step.h"
#include "server/engine/engine_options.h"
#include "server/engine/output_head.h"
#include "server/engine/sequence.h"
#include "server/model/model.h"
#include "server/policy/compressor.h"

namespace pkv {

class ModelRunner {
 public:
  static absl::StatusOr<std::unique_ptr<ModelRunner>> create(const Model& model, const EngineOptions& options);

  KvCache& cache() { return *cache_; }
  const KvCache& cache() const { return *cache_; }
  // Of what all sequences share beside the pages: tensors, buffers of steps, page tables.
  uint64_t shared_workspace_bytes() const;
  const StepWork& step_work() const { return step_work_; }
  // Rows that went through the model, or through one layer of it or its output head, since this was last asked.
  int64_t take_rows_run() { return std::exchange(rows_run_, 0); }

  // Allocates the sequence's workspace and opens its lanes. RESOURCE_EXHAUSTED where the machine has no such memory.
  absl::Status start_prefill(Sequence& sequence);
  // The sequence's next unit: one chunk of rows through one layer, steps of the layer's cut, or, where the prompt's own
  // log-probabilities are asked for, one tile of rows through the output head. Returns its work in multiply-adds: no
  // more than `most`, but one row or one step is always done. After the last unit the
  // sequence has its first token and phase kDecode, or is done. INTERNAL where the cache has no slots, which its
  // reservation excludes; the backend's status() where that is one.
  absl::StatusOr<int64_t> prefill_unit(Sequence& sequence, int64_t most);
  // ---- of sequences in phase kDecode that are not done
  // Whether the next token has to wait until scores of its entries are made anew.
  static bool needs_refresh(Sequence& sequence);
  // Goes on with that; returns the multiply-adds that were done: no more than `most`, but one step is always done.
  static int64_t refresh_unit(Sequence& sequence, int64_t most);
  // One more token for each, nothing compared, nothing to be refreshed. One that fails gets its `failure`;
  // the others go on. An error is the backend's status(): no token comes of it.
  absl::Status decode(std::span<Sequence* const> sequences);
  // One more place of a comparison: the baseline, each rival on the baseline's answer, each on its own. Errors as
  // decode().
  absl::Status decode_comparison(Sequence& sequence);

 private:
  ModelRunner(const Model& model, const EngineOptions& options)
      : model_(model), options_(options), step_work_(model.shape(), options) {}
  absl::Status allocate();

  // The failure of a sequence whose reserved slots were not there.
  static absl::Status no_slots(const absl::Status& cause);

  bool scores_prompt(const Sequence& sequence) const { return sequence.request().prompt_logprobs; }
  // nullptr where nothing is compared.
  absl::StatusOr<std::unique_ptr<Comparison>> start_comparison(const Sequence& sequence);
  absl::StatusOr<int64_t> layer_unit(Sequence& sequence, int64_t most);
  // Steps of the cut behind `work` that the unit has already done; returns both.
  absl::StatusOr<int64_t> cut_unit(Sequence& sequence, int64_t most, int64_t work);
  absl::StatusOr<int64_t> scoring_unit(Sequence& sequence, int64_t most);
  void observe_rows(Sequence& sequence, int32_t rows, const TensorView& lse);
  void capture_rows(Sequence& sequence, int32_t first, int32_t rows);
  // Of a prompt's layers all but the last carry all rows on; that one where they are scored.
  bool carries_rows(const Sequence& sequence) const;
  // Before rows attend by a pattern: the layer's keys, chunk by chunk, and the pattern's choice, step by step.
  bool wants_pattern(const Sequence& sequence) const;
  absl::StatusOr<int64_t> pattern_unit(Sequence& sequence, int64_t most);
  absl::StatusOr<int64_t> keys_unit(Sequence& sequence, int64_t most);
  // Of `longest` rows those that one unit may have: a row that is measured is the last, and rows that see everything
  // are by themselves, for they are more work.
  int32_t limit_rows(const Sequence& sequence, int32_t longest, PromptWork& work) const;
  void measure_row(Sequence& sequence, int32_t rows);
  absl::Status finish_prompt(Sequence& sequence);
  void plan_prefill(const Sequence& sequence, int32_t first, int32_t rows);
  Compressor::Options compressor_options(const Sequence& sequence, const PolicySpec& spec) const;
  SequenceLanes::Options lane_options(const Sequence& sequence, const PolicySpec& spec, const Contract::Terms& terms,
                                      bool holds_whole_layers);

  absl::StatusOr<LogitEdits> make_edits(const Sequence& sequence) const;
  void accept(Sequence& sequence, const OutputHead::Result& output);

  const Model& model_;
  EngineOptions options_;
  StepWork step_work_;
  std::unique_ptr<KvCache> cache_;
  std::unique_ptr<CompressorScratch> compressor_scratch_;  // of decode steps
  StepScratch scratch_;
  std::optional<OutputHead> head_;
  std::optional<DecodeStep> decode_step_;
  std::optional<StepBuffer> prefill_buffer_;
  StepPlan plan_;  // of the prefill unit under way
  std::vector<DecodeRow> rows_;
  int64_t rows_run_ = 0;
};

}  // namespace pkv
