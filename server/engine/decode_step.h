// One decode step: one token each of many sequences through all layers.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <utility>
#include <vector>

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
  uint64_t bytes() const { return x_.bytes() + planner_.bytes(); }

  // Called once per row, in order: the place in `rows`, and what came of it, or why there is nothing.
  using OnOutput = std::function<absl::Status(size_t row, const OutputHead::Result& output)>;
  using OnFailure = std::function<void(size_t row, const absl::Status& status)>;
  // An error is the backend's status(), or of on_output, which is not called with what a failed backend gives.
  absl::Status run(std::span<const DecodeRow> rows, const OnOutput& on_output, const OnFailure& on_failure);

 private:
  DecodeStep(const Shared& shared, DecodePlanner planner) : shared_(shared), planner_(std::move(planner)) {}
  absl::Status run_planned(std::span<const DecodeRow> rows, const StepPlan& plan, const OnOutput& on_output);
  // Every lane of the step gets the slot of its new entry.
  void make_room(std::span<const DecodeRow> rows, const StepPlan& plan);
  void observe(std::span<const DecodeRow> rows, const StepPlan& plan, int32_t layer);

  // One token of every row through all layers, nothing of which is observed.
  void run_layers(const StepPlan& plan, const TensorView& x);

  Shared shared_;
  DecodePlanner planner_;
  Tensor x_;                                                  // [rows, D]
  std::map<int32_t, std::unique_ptr<Recording>> recordings_;  // of run_layers(), by the plan's rows; end before x_
  std::vector<OutputHead::Row> outputs_;
};

}  // namespace pkv
