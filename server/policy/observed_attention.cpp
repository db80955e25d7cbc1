// The rows' log-sum-exps, and the mass in every column: one pass over the keys or two, as the backend does it.
#include "server/policy/observed_attention.h"

#include <algorithm>

namespace pkv {
namespace {

ObserveArgs observe_args(const LayerView& layer, const ObservedRows& rows) {
  return {.q = rows.q,
          .kv = layer.kv,
          .first_lane = layer.first_lane,
          .unseen = rows.unseen,
          .q_heads = layer.q_heads,
          .kv_heads = layer.kv_heads,
          .scale = layer.scale};
}

void add_rows(const LayerView& layer, const ObservedRows& rows, const TensorView& lse, const TensorView& sums,
              const TensorView& squares) {
  const TensorView own = lse.slice_rows(0, rows.q.rows);  // done with before the next rows need it
  layer.backend->observe(observe_args(layer, rows), own, sums, squares);
}

// As many rows a step as its work allows. Columns are added up row by row, so the result is that of one step.
void add_row_steps(const LayerView& layer, const ObservedRows& rows, const ScoreBuffers& buffers,
                   const TensorView& squares, ScoreSteps& steps) {
  const int64_t row_work = layer.pair_work() * layer.tokens;
  const int64_t most = std::max<int64_t>(1, steps.most_work() / std::max<int64_t>(1, row_work));
  for (int64_t first = 0; first < rows.q.rows; first += most) {
    const int64_t count = std::min(most, rows.q.rows - first);
    const ObservedRows some{.q = rows.q.slice_rows(first, count),
                            .unseen = std::max(0, rows.unseen - static_cast<int32_t>(first)),
                            .turned = rows.turned};
    steps.add(count * row_work, [some, lse = buffers.lse, sums = buffers.sums, squares](const LayerView& now) {
      add_rows(now, some, lse, sums, squares);
    });
  }
}

}  // namespace

void add_attention(const LayerView& layer, const ObservedRows& rows, const TensorView& lse, const TensorView& sums) {
  add_rows(layer, rows, lse, sums, TensorView{});
}

void add_known_attention(const LayerView& layer, const ObservedRows& rows, const TensorView& lse,
                         const TensorView& sums) {
  layer.backend->column_mass(observe_args(layer, rows), lse, sums, TensorView{});
}

void sum_observed_attention(const LayerView& layer, const ScoreBuffers& buffers, ScoreSteps& steps) {
  steps.add(layer.entries_work(), [sums = buffers.sums](const LayerView& now) { now.backend->fill(sums, 0.0f); });
  for (const ObservedRows& rows : layer.observed) add_row_steps(layer, rows, buffers, TensorView{}, steps);
}

void add_observed_squares(const LayerView& layer, const ObservedRows& rows, const ScoreBuffers& buffers,
                          ScoreSteps& steps) {
  add_row_steps(layer, rows, buffers, buffers.squares, steps);
}

}  // namespace pkv
