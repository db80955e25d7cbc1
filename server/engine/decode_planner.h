// Plans decode steps: makes room for every row's token and writes down what the step needs.
#pragma once

#include <compare>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/cache/step_buffer.h"
#include "server/engine/output_head.h"
#include "server/engine/sequence_lanes.h"

namespace pkv {

// A token to be written at `position` of the text.
struct DecodeRow {
  SequenceLanes* lanes = nullptr;
  int32_t token = 0;
  int32_t position = 0;
  OutputHead::Row output;  // what is wanted of the logits that follow
};

class DecodePlanner {
 public:
  // For steps of at most `rows` rows, of whose logits there are `vocabulary` each. `cache` must outlive this.
  // RESOURCE_EXHAUSTED where the memory cannot be had.
  static absl::StatusOr<DecodePlanner> create(KvCache& cache, int32_t vocabulary, int32_t rows);
  uint64_t bytes() const { return buffer_.bytes(); }

  // Makes room for the rows [first, end) and plans a step of those that have it; the others' failures are told. The
  // plan is valid until the next one.
  using OnFailure = absl::FunctionRef<void(size_t row, const absl::Status& status)>;
  const StepPlan& plan(std::span<const DecodeRow> rows, size_t first, size_t end, OnFailure on_failure);
  // The step's rows, but those behind them that are nobody's: their places in what plan() was given.
  std::span<const size_t> placed() const { return placed_; }
  // What the step's evictions need of its rows, layer by layer.
  struct Observed {
    bool keys = false;       // new entries are scored by them
    bool queries = false;    // they are kept
    bool attention = false;  // scores grow by it
    auto operator<=>(const Observed&) const = default;
  };
  const Observed& observed() const { return observed_; }

 private:
  DecodePlanner(KvCache& cache, int32_t vocabulary, int32_t rows, StepBuffer buffer)
      : cache_(&cache), vocabulary_(vocabulary), rows_(rows), buffer_(std::move(buffer)) {}

  KvCache* cache_;
  int32_t vocabulary_;
  int32_t rows_;  // at most
  StepBuffer buffer_;
  StepPlan plan_;
  std::vector<size_t> placed_;
  std::vector<int32_t> angles_;  // of them
  Observed observed_;
};

}  // namespace pkv
