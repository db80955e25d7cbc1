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
  bool log_sum_exp = false;
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

  // Called once per row, in order: the place in `rows`, and the logits [V] of the token that follows (with their
  // log-sum-exp where asked for), or why there are none.
  using OnLogits = std::function<void(size_t row, std::span<float> logits, float log_sum_exp)>;
  using OnFailure = std::function<void(size_t row, const absl::Status& status)>;
  // An error is the backend's status(); on_logits is not called with what a failed one gives.
  absl::Status run(std::span<const DecodeRow> rows, const OnLogits& on_logits, const OnFailure& on_failure);

 private:
  explicit DecodeStep(const Shared& shared) : shared_(shared) {}
  absl::Status run_placed(std::span<const DecodeRow> rows, const OnLogits& on_logits);
  void plan(std::span<const DecodeRow> rows);
  void observe(std::span<const DecodeRow> rows, int32_t layer);

  Shared shared_;
  Tensor x_;                     // [rows, D]
  StepPlan plan_;                // reused from step to step
  std::vector<size_t> placed_;   // rows of the call that take part
  std::vector<int32_t> angles_;  // of them
};

}  // namespace pkv
