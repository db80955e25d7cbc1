// One decode step: one token each of many sequences through all layers.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/engine/output_head.h"
#include "server/engine/sequence_lanes.h"
#include "server/model/model.h"

namespace pkv {

// A token to be written at `position` of the text.
struct DecodeRow {
  SequenceLanes* lanes = nullptr;
  int32_t token = 0;
  int32_t position = 0;
  OutputRow output;  // what is wanted of the logits that follow
};

class DecodeStep {
 public:
  // Steps of at most `rows` rows; more are split. What is referred to must outlive this. RESOURCE_EXHAUSTED where the
  // memory cannot be had.
  struct Shared {
    const Model& model;
    const KvCache& cache;
    StepScratch& scratch;
    CompressorScratch& compressor_scratch;
    OutputHead& head;
  };
  static absl::StatusOr<DecodeStep> create(const Shared& shared, int32_t rows);
  uint64_t bytes() const { return x_.bytes(); }

  // Called once per row, in order: the place in `rows`, and what came of it, or why there is nothing.
  using OnOutput = std::function<absl::Status(size_t row, const RowOutput& output)>;
  using OnFailure = std::function<void(size_t row, const absl::Status& status)>;
  // An error is the backend's status(), or of on_output, which is not called with what a failed backend gives.
  absl::Status run(std::span<const DecodeRow> rows, const OnOutput& on_output, const OnFailure& on_failure);

 private:
  explicit DecodeStep(const Shared& shared) : shared_(shared) {}
  absl::Status run_placed(std::span<const DecodeRow> rows, const OnOutput& on_output);
  void plan(std::span<const DecodeRow> rows);
  // Every lane of the step gets the slot of its new entry.
  void make_room(std::span<const DecodeRow> rows);
  EvictingStep evicting_step(int32_t first_layer, int32_t layers) const;
  void observe(std::span<const DecodeRow> rows, int32_t layer);

  Shared shared_;
  Tensor x_;                           // [rows, D]
  StepPlan plan_;                      // reused from step to step
  std::vector<EvictingRow> evicting_;  // rows of the plan whose entries go
  bool keys_scored_ = false;           // some of them by their keys
  std::vector<size_t> placed_;         // rows of the call that take part
  std::vector<int32_t> angles_;        // of them
  std::vector<OutputRow> outputs_;
};

}  // namespace pkv
