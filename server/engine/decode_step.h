// One decode step: one token each of many sequences through all layers.
#pragma once

#include <compare>
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
  using OnOutput = std::function<void(size_t row, const OutputHead::Result& output)>;
  using OnFailure = std::function<void(size_t row, const absl::Status& status)>;
  // An error is the backend's status(); on_output is not called with what a failed backend gives.
  absl::Status run(std::span<const DecodeRow> rows, const OnOutput& on_output, const OnFailure& on_failure);

 private:
  DecodeStep(const Shared& shared, DecodePlanner planner) : shared_(shared), planner_(std::move(planner)) {}
  // What a step asks for follows from this alone; all else that it is lies in memory.
  struct Shape {
    int32_t rows = 0, evicting_rows = 0;
    DecodePlanner::Observed observed;
    bool ranks = false;  // its logits are one tile of which no row is compared
    bool sampled = false, logprobs = false;
    auto operator<=>(const Shape&) const = default;
  };
  absl::Status run_planned(std::span<const DecodeRow> rows, const StepPlan& plan, const OnOutput& on_output);
  // Every lane gets the slot of its new entry, and every row's token goes through all layers.
  void run_layers(const StepPlan& plan, const TensorView& x);
  // What evictions need of a layer that the rows went through.
  void observe(const StepPlan& plan, int32_t layer);
  std::unique_ptr<Recording>& recording_of(const Shape& shape);

  Shared shared_;
  DecodePlanner planner_;
  Tensor x_;  // [rows, D]
  // They end before x_.
  std::map<Shape, std::unique_ptr<Recording>> recordings_;
  std::vector<OutputHead::Row> outputs_;
};

}  // namespace pkv
