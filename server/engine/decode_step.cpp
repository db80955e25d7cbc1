// Plans and runs decode steps.
#include "server/engine/decode_step.h"

#include <algorithm>
#include <utility>

#include "kernels/status_macros.h"

namespace pkv {

absl::StatusOr<DecodeStep> DecodeStep::create(const Shared& shared, int32_t rows) {
  DecodeStep step(shared);
  PKV_ASSIGN_OR_RETURN(step.x_, shared.model.backend().allocate(rows, shared.model.shape().width, DType::kF32));
  return step;
}

absl::Status DecodeStep::run(std::span<const DecodeRow> rows, const OnLogits& on_logits, const OnFailure& on_failure) {
  const auto most = static_cast<size_t>(x_.view().rows);
  for (size_t first = 0; first < rows.size(); first += most) {
    const size_t end = std::min(rows.size(), first + most);
    placed_.clear();
    angles_.clear();
    for (size_t i = first; i < end; ++i) {
      const absl::StatusOr<int32_t> angle = rows[i].lanes->place_token(rows[i].position, shared_.compressor_scratch);
      if (!angle.ok()) {
        on_failure(i, angle.status());
        continue;
      }
      placed_.push_back(i);
      angles_.push_back(*angle);
    }
    if (!placed_.empty()) PKV_RETURN_IF_ERROR(run_placed(rows, on_logits));
  }
  return absl::OkStatus();
}

absl::Status DecodeStep::run_placed(std::span<const DecodeRow> rows, const OnLogits& on_logits) {
  plan(rows);
  const TensorView x = x_.rows(plan_.rows());
  shared_.model.embed(plan_.token_ids.data(), x);
  for (int32_t layer = 0; layer < shared_.model.shape().layers; ++layer) {
    shared_.model.run_layer(plan_, layer, x, shared_.scratch, plan_.rows());
    observe(rows, layer);
  }
  for (const size_t i : placed_) rows[i].lanes->end_token();

  OutputHead& head = shared_.head;
  for (int64_t first = 0; first < x.rows; first += head.rows()) {
    const int64_t count = std::min<int64_t>(head.rows(), x.rows - first);
    const auto begin = placed_.begin() + first;
    const bool with_lse = std::any_of(begin, begin + count, [&](size_t i) { return rows[i].log_sum_exp; });
    head.compute(x.slice_rows(first, count), Phase::kDecode, with_lse);
    PKV_RETURN_IF_ERROR(shared_.model.backend().status());
    for (int64_t i = 0; i < count; ++i) on_logits(begin[i], head.logits(i), head.log_sum_exp(i));
  }
  return absl::OkStatus();
}

void DecodeStep::plan(std::span<const DecodeRow> rows) {
  const ModelShape& shape = shared_.model.shape();
  plan_.phase = Phase::kDecode;
  plan_.token_ids.clear();
  plan_.positions.clear();
  plan_.spans.clear();
  for (const size_t i : placed_) {
    const int32_t row = plan_.rows();
    plan_.spans.push_back({.first_row = row, .rows = 1, .first_lane = row * shape.kv_heads});
    plan_.token_ids.push_back(rows[i].token);
    plan_.positions.push_back(rows[i].position);
  }
  plan_.angles = angles_;
  plan_.first_layer = 0;
  plan_.layer_lanes.resize(static_cast<size_t>(shape.layers));
  plan_.page_ids.clear();
  plan_.cache = shared_.cache.base_view();
  for (int32_t layer = 0; layer < shape.layers; ++layer) {
    std::vector<Lane>& lanes = plan_.layer_lanes[static_cast<size_t>(layer)];
    lanes.clear();
    for (const size_t i : placed_) rows[i].lanes->view_token(layer, lanes, plan_.page_ids);
  }
}

void DecodeStep::observe(std::span<const DecodeRow> rows, int32_t layer) {
  const KvView kv = plan_.view(layer);
  for (size_t i = 0; i < placed_.size(); ++i) {
    const auto row = static_cast<int64_t>(i);
    rows[placed_[i]].lanes->observe(layer,
                                    {.q = shared_.scratch.q.view().slice_rows(row, 1),
                                     .k = shared_.scratch.k.view().slice_rows(row, 1),
                                     .kv = kv,
                                     .first_lane = plan_.spans[i].first_lane},
                                    shared_.compressor_scratch);
  }
}

}  // namespace pkv
