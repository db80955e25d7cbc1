// The rows' log-sum-exps, and the mass in every column: one pass over the keys or two, as the backend does it.
#include "server/policy/observed_attention.h"

namespace pkv {

namespace {

void add_rows(const LayerView& layer, const ObservedRows& rows, const TensorView& lse, const TensorView& sums,
              const TensorView& squares) {
  const ObserveArgs observed{.q = rows.q,
                             .kv = layer.kv,
                             .first_lane = layer.first_lane,
                             .unseen = rows.unseen,
                             .q_heads = layer.q_heads,
                             .kv_heads = layer.kv_heads,
                             .scale = layer.scale};
  const TensorView own = lse.slice_rows(0, rows.q.rows);  // done with before the next rows need it
  layer.backend->observe(observed, own, sums, squares);
}

}  // namespace

void add_observed_attention(const LayerView& layer, const TensorView& lse, const TensorView& sums) {
  for (const ObservedRows& rows : layer.observed) add_rows(layer, rows, lse, sums, TensorView{});
}

void add_observed_squares(const LayerView& layer, const ObservedRows& rows, const ScoreBuffers& buffers) {
  add_rows(layer, rows, buffers.lse, buffers.sums, buffers.squares);
}

void sum_observed_attention(const LayerView& layer, const TensorView& lse, const TensorView& sums) {
  layer.backend->fill(sums, 0.0f);
  add_observed_attention(layer, lse, sums);
}

}  // namespace pkv
