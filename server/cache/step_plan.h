// Everything one step needs, in backend memory: which rows, at which positions, in which lanes. A step is either one
// prefill unit (rows of one prompt, one layer) or one decode step (one row each of many sequences, all layers). Plain
// data: what it points to lies in a StepBuffer and holds until the next step there is begun.
#pragma once

#include <cstdint>

#include "kernels/backend.h"

namespace pkv {

// What is wanted of rows of logits: one of each for every row.
struct DescribedRows {
  const SampleRow* samples = nullptr;
  const LogprobRow* logprobs = nullptr;
};

struct StepPlan {
  Phase phase = Phase::kDecode;
  int32_t rows = 0;
  const int32_t* token_ids = nullptr;     // [rows]
  const int32_t* positions = nullptr;     // [rows] original positions: what the cache records
  const int32_t* angles = nullptr;        // [rows] positions by which queries and keys are rotated; mostly the same
  RowSpans spans;                         // one per sequence; first_lane counts within a layer's lanes
  int32_t first_layer = 0;                // of those this step runs
  KvView cache;                           // with the lanes of the first layer; those of the next ones follow
  const EvictingRow* evicting = nullptr;  // [evicting_rows] sequences whose entries go for their tokens
  int32_t evicting_rows = 0;
  DescribedRows outputs;  // what is wanted of the logits; only in decode steps

  // The cache as one of the step's layers sees it.
  KvView view(int32_t layer) const {
    KvView result = cache;
    result.lanes += static_cast<int64_t>(layer - first_layer) * cache.lane_count;
    return result;
  }

  // The evicting sequences' part of some of the step's layers.
  EvictingStep evicting_step(int32_t layer, int32_t layers) const {
    return {.rows = evicting,
            .count = evicting_rows,
            .lanes = view(layer).lanes,
            .lanes_per_layer = cache.lane_count,
            .first_layer = layer,
            .layers = layers,
            .kv_heads = spans.count == 0 ? 0 : cache.lane_count / spans.count};
  }
};

}  // namespace pkv
