// Parts of a step one behind the other, each on a cache line of its own.
#include "server/cache/step_buffer.h"

#include "kernels/check.h"
#include "kernels/status_macros.h"

namespace pkv {
namespace {

constexpr size_t kAlignment = 64;

// Changed page ids that fit a commit beside one for every lane of the step: those that cuts of other sequences left.
constexpr size_t kSpareEdits = 4096;

}  // namespace

absl::StatusOr<StepBuffer> StepBuffer::create(KvCache& cache, const Size& largest) {
  StepBuffer buffer(cache);
  buffer.largest_ = largest;
  const size_t lanes = static_cast<size_t>(largest.layers) * static_cast<size_t>(largest.spans) *
                       static_cast<size_t>(cache.geometry().kv_heads);
  const size_t bytes = buffer.lay_out(largest) + (lanes + kSpareEdits) * sizeof(PageEdit);
  PKV_ASSIGN_OR_RETURN(buffer.memory_, cache.backend().allocate_staged(bytes));
  return buffer;
}

size_t StepBuffer::lay_out(const Size& size) {
  size_t end = 0;
  const auto place = [&](size_t count, size_t bytes) {
    const size_t offset = end;
    end = (offset + count * bytes + kAlignment - 1) / kAlignment * kAlignment;
    return offset;
  };
  size_ = size;
  const auto rows = static_cast<size_t>(size.rows);
  token_ids_ = place(rows, sizeof(int32_t));
  positions_ = place(rows, sizeof(int32_t));
  angles_ = place(rows, sizeof(int32_t));
  spans_ = place(static_cast<size_t>(size.spans), sizeof(RowSpan));
  lanes_ = place(static_cast<size_t>(size.layers) * static_cast<size_t>(layer_lanes()), sizeof(Lane));
  evicting_ = place(static_cast<size_t>(size.evicting), sizeof(EvictingRow));
  samples_ = place(static_cast<size_t>(size.outputs), sizeof(SampleRow));
  logprobs_ = place(static_cast<size_t>(size.outputs), sizeof(LogprobRow));
  edits_ = end;
  return end;
}

void StepBuffer::begin(Phase phase, const Size& size, int32_t first_layer) {
  PKV_CHECK(size.rows <= largest_.rows && size.spans <= largest_.spans && size.layers <= largest_.layers &&
                size.evicting <= largest_.evicting && size.outputs <= largest_.outputs,
            "a step larger than the largest");
  phase_ = phase;
  first_layer_ = first_layer;
  lay_out(size);
}

StepPlan StepBuffer::commit() {
  const auto room = static_cast<int32_t>((memory_.bytes() - edits_) / sizeof(PageEdit));
  const int32_t edits = cache_->page_table().take_edits(part<PageEdit>(edits_), room);
  Backend& backend = cache_->backend();
  backend.commit(memory_, 0, edits_ + static_cast<size_t>(edits) * sizeof(PageEdit));
  KvView view = cache_->base_view();
  if (edits > 0) backend.set_page_ids(cache_->page_table().device(), device<PageEdit>(edits_), edits);
  view.lanes = device<Lane>(lanes_);
  view.lane_count = static_cast<int32_t>(layer_lanes());
  return {.phase = phase_,
          .rows = size_.rows,
          .token_ids = device<int32_t>(token_ids_),
          .positions = device<int32_t>(positions_),
          .angles = device<int32_t>(angles_),
          .spans = {device<RowSpan>(spans_), size_.spans},
          .first_layer = first_layer_,
          .cache = view,
          .evicting = device<EvictingRow>(evicting_),
          .evicting_rows = size_.evicting,
          .outputs = {device<SampleRow>(samples_), device<LogprobRow>(logprobs_)}};
}

}  // namespace pkv
