// Two passes over the keys: the rows' log-sum-exps, and the mass in every column.
#include "server/policy/observed_attention.h"

namespace pkv {

void add_observed_attention(const LayerView& layer, const TensorView& lse, const TensorView& sums) {
  for (const ObservedRows& rows : layer.observed) {
    const ObserveArgs observed{.q = rows.q,
                               .kv = layer.kv,
                               .first_lane = layer.first_lane,
                               .unseen = rows.unseen,
                               .q_heads = layer.q_heads,
                               .kv_heads = layer.kv_heads,
                               .scale = layer.scale};
    const TensorView own = lse.slice_rows(0, rows.q.rows);  // done with before the next rows need it
    layer.backend->row_lse(observed, own);
    layer.backend->column_mass(observed, own, sums, TensorView{});
  }
}

void sum_observed_attention(const LayerView& layer, const TensorView& lse, const TensorView& sums) {
  layer.backend->fill(sums, 0.0f);
  add_observed_attention(layer, lse, sums);
}

}  // namespace pkv
