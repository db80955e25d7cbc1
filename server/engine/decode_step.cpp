// Runs planned decode steps, and has the output head read what comes out.
#include "server/engine/decode_step.h"

#include <algorithm>
#include <functional>
#include <utility>

#include "kernels/status_macros.h"

namespace pkv {

absl::StatusOr<DecodeStep> DecodeStep::create(const Shared& shared, int32_t rows) {
  PKV_ASSIGN_OR_RETURN(DecodePlanner planner,
                       DecodePlanner::create(shared.cache, shared.model.shape().vocab_size, rows));
  DecodeStep step(shared, std::move(planner));
  PKV_ASSIGN_OR_RETURN(step.x_, shared.model.backend().allocate(rows, shared.model.shape().width, DType::kF32));
  return step;
}

absl::Status DecodeStep::run(std::span<const DecodeRow> rows, const OnOutput& on_output, const OnFailure& on_failure) {
  const auto most = static_cast<size_t>(x_.view().rows);
  for (size_t first = 0; first < rows.size(); first += most) {
    const size_t end = std::min(rows.size(), first + most);
    const StepPlan& plan = planner_.plan(rows, first, end, on_failure);
    if (plan.rows > 0) PKV_RETURN_IF_ERROR(run_planned(rows, plan, on_output));
  }
  return absl::OkStatus();
}

absl::Status DecodeStep::run_planned(std::span<const DecodeRow> rows, const StepPlan& plan, const OnOutput& on_output) {
  const std::span<const size_t> placed = planner_.placed();
  make_room(rows, plan);
  const TensorView x = x_.rows(plan.rows);
  if (plan.evicting_rows == 0) {
    // Where everything lies follows from the number of rows alone (StepBuffer): what else a step is, is in memory.
    const auto layers = [&] { run_layers(plan, x); };
    shared_.model.backend().replay(recordings_[plan.rows], std::cref(layers));
  } else {
    shared_.model.embed(plan.token_ids, x);
    for (int32_t layer = 0; layer < shared_.model.shape().layers; ++layer) {
      shared_.model.run_layer(plan, layer, x, shared_.scratch, plan.rows);
      observe(rows, plan, layer);
    }
  }
  for (const size_t i : placed) rows[i].lanes->end_token();

  outputs_.clear();
  for (const size_t i : placed) outputs_.push_back(rows[i].output);
  return shared_.head.run(
      {.x = x.slice_rows(0, static_cast<int64_t>(placed.size())), .phase = Phase::kDecode, .rows = outputs_},
      plan.outputs, [&](size_t row, const OutputHead::Result& output) { return on_output(placed[row], output); });
}

void DecodeStep::run_layers(const StepPlan& plan, const TensorView& x) {
  shared_.model.embed(plan.token_ids, x);
  for (int32_t layer = 0; layer < shared_.model.shape().layers; ++layer) {
    shared_.model.run_layer(plan, layer, x, shared_.scratch, plan.rows);
  }
}

void DecodeStep::make_room(std::span<const DecodeRow> rows, const StepPlan& plan) {
  const std::span<const size_t> placed = planner_.placed();
  for (size_t i = 0; i < placed.size(); ++i) {
    const int32_t first_lane = static_cast<int32_t>(i) * shared_.model.shape().kv_heads;
    rows[placed[i]].lanes->prepare(plan.cache, first_lane, shared_.compressor_scratch);
  }
  if (plan.evicting_rows == 0) return;
  shared_.model.backend().choose_slots(plan.evicting_step(plan.first_layer, shared_.model.shape().layers));
}

void DecodeStep::observe(std::span<const DecodeRow> rows, const StepPlan& plan, int32_t layer) {
  const KvView kv = plan.view(layer);
  const std::span<const size_t> placed = planner_.placed();
  if (planner_.scores_keys()) {
    shared_.model.backend().score_new_entries(plan.evicting_step(layer, 1), shared_.scratch.k.rows(plan.rows));
  }
  for (size_t i = 0; i < placed.size(); ++i) {
    const auto row = static_cast<int32_t>(i);
    rows[placed[i]].lanes->observe(layer,
                                   {.q = shared_.scratch.q.view().slice_rows(row, 1),
                                    .kv = kv,
                                    .first_lane = row * shared_.model.shape().kv_heads},
                                   shared_.compressor_scratch);
  }
}

}  // namespace pkv
