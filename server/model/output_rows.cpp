// Cuts the first rows off a step's attention.
#include "server/model/output_rows.h"

#include <algorithm>

namespace pkv {

OutputRows skip_rows(const StepPlan& plan, const KvView& view, int32_t skipped, int32_t kv_heads) {
  OutputRows result;
  result.lanes.assign(view.lanes, view.lanes + view.lane_count);
  for (const RowSpan& span : plan.spans) {
    const int32_t cut = std::clamp(skipped - span.first_row, 0, span.rows);
    if (cut == span.rows) continue;
    result.spans.push_back({span.first_row + cut - skipped, span.rows - cut, span.first_lane});
    for (int32_t head = 0; head < kv_heads; ++head) {
      Lane& lane = result.lanes[static_cast<size_t>(span.first_lane + head)];
      lane.visible += cut;
      lane.write_slot += cut;
    }
  }
  return result;
}

}  // namespace pkv
