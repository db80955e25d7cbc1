// Everything one step needs, built once by the engine before the model runs: which rows, at which positions, in which
// lanes. A step is either one prefill unit (rows of one prompt, one layer) or one decode step (one row each of many
// sequences, all layers).
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/backend.h"

namespace pkv {

struct StepPlan {
  Phase phase = Phase::kDecode;
  std::vector<int32_t> token_ids;  // [rows]
  std::vector<int32_t> positions;  // [rows] original positions: what the cache records
  std::vector<int32_t> angles;     // [rows] positions by which queries and keys are rotated; mostly the same
  std::vector<RowSpan> spans;      // one per sequence; first_lane counts within a layer's lanes

  // The cache views of the layers this step runs: lanes of layer l are layer_lanes[l - first_layer], all indexing
  // page_ids.
  int32_t first_layer = 0;
  std::vector<std::vector<Lane>> layer_lanes;  // [layers of the step][sequences * kv_heads]
  std::vector<int32_t> page_ids;
  KvView cache;  // lanes and page_ids are set per layer by view()

  int32_t rows() const { return static_cast<int32_t>(positions.size()); }
  RowSpans row_spans() const { return {spans.data(), static_cast<int32_t>(spans.size())}; }
  // The view of one of the step's layers. Valid until the plan changes.
  KvView view(int32_t layer) const {
    KvView result = cache;
    const std::vector<Lane>& lanes = layer_lanes[static_cast<size_t>(layer - first_layer)];
    result.page_ids = page_ids.data();
    result.lanes = const_cast<Lane*>(lanes.data());
    result.lane_count = static_cast<int32_t>(lanes.size());
    return result;
  }
};

}  // namespace pkv
