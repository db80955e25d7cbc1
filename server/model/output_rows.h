// The part of a step's attention that belongs to its last rows: what the last layer of a prompt computes when only
// those rows are carried on.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/kv_view.h"
#include "server/model/step_plan.h"

namespace pkv {

// Spans and lanes of a step without its first rows. Rows count from the first one that is left.
struct OutputRows {
  std::vector<RowSpan> spans;
  std::vector<Lane>
      lanes;  // those of the view, with `visible` and `write_slot` moved on by the rows cut off their sequence
};

// Cuts the first `skipped` rows (0 .. plan.rows()) off. `view` is the layer's view of the plan's cache.
OutputRows skip_rows(const StepPlan& plan, const KvView& view, int32_t skipped, int32_t kv_heads);

}  // namespace pkv
