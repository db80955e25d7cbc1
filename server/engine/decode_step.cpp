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

absl::Status DecodeStep::run(std::span<const DecodeRow> rows, const OnOutput& on_output, const OnFailure& on_failure) {
  const auto most = static_cast<size_t>(x_.view().rows);
  for (size_t first = 0; first < rows.size(); first += most) {
    const size_t end = std::min(rows.size(), first + most);
    placed_.clear();
    angles_.clear();
    for (size_t i = first; i < end; ++i) {
      const absl::StatusOr<int32_t> angle = rows[i].lanes->place_token(rows[i].position);
      if (!angle.ok()) {
        on_failure(i, angle.status());
        continue;
      }
      placed_.push_back(i);
      angles_.push_back(*angle);
    }
    if (!placed_.empty()) PKV_RETURN_IF_ERROR(run_placed(rows, on_output));
  }
  return absl::OkStatus();
}

absl::Status DecodeStep::run_placed(std::span<const DecodeRow> rows, const OnOutput& on_output) {
  plan(rows);
  make_room(rows);
  const TensorView x = x_.rows(plan_.rows());
  shared_.model.embed(plan_.token_ids.data(), x);
  for (int32_t layer = 0; layer < shared_.model.shape().layers; ++layer) {
    shared_.model.run_layer(plan_, layer, x, shared_.scratch, plan_.rows());
    observe(rows, layer);
  }
  for (const size_t i : placed_) rows[i].lanes->end_token();

  outputs_.clear();
  for (const size_t i : placed_) outputs_.push_back(rows[i].output);
  return shared_.head.run(x, Phase::kDecode, outputs_,
                          [&](size_t row, const RowOutput& output) { return on_output(placed_[row], output); });
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
  plan_.lanes_per_layer = plan_.rows() * shape.kv_heads;
  plan_.lanes.clear();
  plan_.page_ids.clear();
  plan_.cache = shared_.cache.base_view();
  for (int32_t layer = 0; layer < shape.layers; ++layer) {
    for (const size_t i : placed_) rows[i].lanes->view_token(layer, plan_.lanes, plan_.page_ids);
  }
}

EvictingStep DecodeStep::evicting_step(int32_t first_layer, int32_t layers) const {
  return {.rows = evicting_.data(),
          .count = static_cast<int32_t>(evicting_.size()),
          .lanes = plan_.view(first_layer).lanes,
          .lanes_per_layer = plan_.lanes_per_layer,
          .first_layer = first_layer,
          .layers = layers,
          .kv_heads = shared_.model.shape().kv_heads};
}

void DecodeStep::make_room(std::span<const DecodeRow> rows) {
  evicting_.clear();
  for (size_t i = 0; i < placed_.size(); ++i) {
    SequenceLanes& lanes = *rows[placed_[i]].lanes;
    lanes.prepare(plan_.view(0), plan_.spans[i].first_lane, plan_.lanes_per_layer, shared_.compressor_scratch);
    if (lanes.evictor() != nullptr) evicting_.push_back(lanes.evictor()->evicting_row(static_cast<int32_t>(i)));
  }
  keys_scored_ =
      std::any_of(evicting_.begin(), evicting_.end(), [](const EvictingRow& row) { return needs_key(row.new_score); });
  if (!evicting_.empty()) shared_.model.backend().choose_slots(evicting_step(0, shared_.model.shape().layers));
}

void DecodeStep::observe(std::span<const DecodeRow> rows, int32_t layer) {
  const KvView kv = plan_.view(layer);
  if (keys_scored_) {
    shared_.model.backend().score_new_entries(evicting_step(layer, 1), shared_.scratch.k.rows(plan_.rows()));
  }
  for (size_t i = 0; i < placed_.size(); ++i) {
    const auto row = static_cast<int64_t>(i);
    rows[placed_[i]].lanes->observe(
        layer, {.q = shared_.scratch.q.view().slice_rows(row, 1), .kv = kv, .first_lane = plan_.spans[i].first_lane},
        shared_.compressor_scratch);
  }
}

}  // namespace pkv
