// Runs planned decode steps, and has the output head read what comes out.
#include "server/engine/decode_step.h"

#include <algorithm>
#include <functional>
#include <utility>

#include "kernels/status_macros.h"

namespace pkv {
namespace {

// Of an 8B model a recording is some 400 launches. Steps with evictions have a shape for each number of evicting rows.
constexpr size_t kMostRecordings = 64;

}  // namespace

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
  const auto count = static_cast<int64_t>(placed.size());
  OutputHead& head = shared_.head;
  outputs_.clear();
  for (int64_t i = 0; i < count; ++i) {
    const DecodeRow& row = rows[placed[static_cast<size_t>(i)]];
    row.lanes->move_keys(plan.cache, static_cast<int32_t>(i) * shared_.model.shape().kv_heads);
    outputs_.push_back(row.output);
  }
  const OutputHead::Wanted wanted = head.wanted_of(outputs_);
  const bool ranks = plan.rows <= head.tile_rows() && !wanted.compared;
  const TensorView x = x_.rows(plan.rows);
  const auto step = [&] {
    run_layers(plan, x);
    if (ranks) head.compute(x, Phase::kDecode, plan.outputs, wanted);
  };
  const Shape shape{.rows = plan.rows,
                    .evicting_rows = plan.evicting_rows,
                    .observed = planner_.observed(),
                    .ranks = ranks,
                    .sampled = ranks && wanted.sampled,
                    .logprobs = ranks && wanted.logprobs};
  shared_.model.backend().replay(recording_of(shape), std::cref(step));
  for (const size_t i : placed) rows[i].lanes->end_token();
  return head.run({.x = x.slice_rows(0, count), .phase = Phase::kDecode, .rows = outputs_, .computed = ranks},
                  plan.outputs, [&](size_t row, const OutputHead::Result& output) {
                    on_output(placed[row], output);
                    return absl::OkStatus();
                  });
}

std::unique_ptr<Recording>& DecodeStep::recording_of(const Shape& shape) {
  if (const auto found = recordings_.find(shape); found != recordings_.end()) return found->second;
  if (recordings_.size() == kMostRecordings) recordings_.clear();
  return recordings_[shape];
}

void DecodeStep::run_layers(const StepPlan& plan, const TensorView& x) {
  const int32_t layers = shared_.model.shape().layers;
  if (plan.evicting_rows > 0) shared_.model.backend().choose_slots(plan.evicting_step(plan.first_layer, layers));
  shared_.model.embed(plan.token_ids, x);
  for (int32_t layer = 0; layer < layers; ++layer) {
    shared_.model.run_layer(plan, layer, x, shared_.scratch, {.outputs = plan.rows});
    observe(plan, layer);
  }
}

void DecodeStep::observe(const StepPlan& plan, int32_t layer) {
  Backend& backend = shared_.model.backend();
  const EvictingStep step = plan.evicting_step(layer, 1);
  const TensorView q = shared_.scratch.q.rows(plan.rows);
  const DecodePlanner::Observed& observed = planner_.observed();
  if (observed.keys) backend.score_new_entries(step, shared_.scratch.k.rows(plan.rows));
  if (observed.queries) backend.keep_queries(step, q);
  if (!observed.attention) return;
  const ModelShape& shape = shared_.model.shape();
  backend.add_attention(step, {.q = q,
                               .kv = plan.view(layer),
                               .q_heads = shape.q_heads,
                               .scale = attention_scale(shape.head_dim),
                               .sums = shared_.compressor_scratch.sums.view(),
                               .mass = shared_.compressor_scratch.mass.view()});
}

}  // namespace pkv
