// Rows, positions, the lanes of all layers and what is wanted of the logits, written straight to where the backend
// reads them.
#include "server/engine/decode_planner.h"

#include <algorithm>

#include "kernels/status_macros.h"

namespace pkv {

absl::StatusOr<DecodePlanner> DecodePlanner::create(KvCache& cache, int32_t vocabulary, int32_t rows) {
  PKV_ASSIGN_OR_RETURN(
      StepBuffer buffer,
      StepBuffer::create(
          cache, {.rows = rows, .spans = rows, .layers = cache.geometry().layers, .evicting = rows, .outputs = rows}));
  DecodePlanner planner(cache, vocabulary, rows, std::move(buffer));
  planner.placed_.reserve(static_cast<size_t>(rows));
  planner.angles_.reserve(static_cast<size_t>(rows));
  return planner;
}

const StepPlan& DecodePlanner::plan(std::span<const DecodeRow> rows, size_t first, size_t end, OnFailure on_failure) {
  placed_.clear();
  angles_.clear();
  int32_t evicting = 0;
  for (size_t i = first; i < end; ++i) {
    const absl::StatusOr<int32_t> angle = rows[i].lanes->place_token(rows[i].position);
    if (!angle.ok()) {
      on_failure(i, angle.status());
      continue;
    }
    placed_.push_back(i);
    angles_.push_back(*angle);
    evicting += rows[i].lanes->evictor() != nullptr ? 1 : 0;
  }
  if (placed_.empty()) return plan_ = {};
  const CacheGeometry& geometry = cache_->geometry();
  const auto count = static_cast<int32_t>(placed_.size());
  const int32_t multiple = cache_->backend().traits().decode_rows;
  const int32_t padded = std::min(rows_, (count + multiple - 1) / multiple * multiple);
  buffer_.begin(Phase::kDecode,
                {.rows = padded, .spans = padded, .layers = geometry.layers, .evicting = evicting, .outputs = padded},
                0);
  int32_t *token_ids = buffer_.token_ids(), *positions = buffer_.positions(), *angles = buffer_.angles();
  RowSpan* spans = buffer_.spans();
  EvictingRow* next_evicting = buffer_.evicting();
  observed_ = {};
  for (int32_t row = 0; row < count; ++row) {
    const DecodeRow& placed = rows[placed_[static_cast<size_t>(row)]];
    const int32_t first_lane = row * geometry.kv_heads;
    token_ids[row] = placed.token;
    positions[row] = placed.position;
    angles[row] = angles_[static_cast<size_t>(row)];
    spans[row] = {.first_row = row, .rows = 1, .first_lane = first_lane};
    OutputHead::describe(placed.output, vocabulary_, buffer_.samples()[row], buffer_.logprobs()[row]);
    placed.lanes->view_token(buffer_.lanes() + first_lane, buffer_.layer_lanes());
    if (const Evictor* evictor = placed.lanes->evictor(); evictor != nullptr) {
      const EvictingRow& described = *next_evicting++ = evictor->evicting_row(row);
      observed_.keys |= needs_key(described.new_score);
      observed_.queries |= described.queries != nullptr;
      observed_.attention |= grows_by_attention(described.new_score);
    }
  }
  // The others are nobody's: what lies there from the last step belongs to nobody either, and nothing is wanted of it.
  for (int32_t row = count; row < padded; ++row) {
    token_ids[row] = positions[row] = angles[row] = 0;
    spans[row] = {.first_row = row, .rows = 0, .first_lane = 0};
    buffer_.samples()[row] = {};
    buffer_.logprobs()[row] = {};
  }
  plan_ = buffer_.commit();
  return plan_;
}

}  // namespace pkv
