// One decode step: one token each of many sequences through all layers.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/engine/decode_planner.h"
#include "server/engine/output_head.h"
#include "server/model/model.h"

namespace pkv {

class DecodeStep {
 public:
  // Steps of at most `rows` rows; more are split. What is referred to must outlive this. RESOURCE_EXHAUSTED where the
  // memory cannot be had.
  struct Shared {
    const Model& model;
    KvCache& cache;
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
  DecodeStep(const Shared& shared, DecodePlanner planner) : shared_(shared), planner_(std::move(planner)) {}
  absl::Status run_planned(std::span<const DecodeRow> rows, const StepPlan& plan, const OnLogits& on_logits);
  // Every lane of the step gets the slot of its new entry.
  void make_room(std::span<const DecodeRow> rows, const StepPlan& plan);
  void observe(std::span<const DecodeRow> rows, const StepPlan& plan, int32_t layer);

  Shared shared_;
  DecodePlanner planner_;
  Tensor x_;  // [rows, D]
};

}  // namespace pkv
