// Two passes over the keys: the rows' log-sum-exps, and the mass in every column.
#include "server/policy/observed_attention.h"

namespace pkv {

void add_observed_attention(const LayerView& layer, const TensorView& lse, const TensorView& sums) {
  const ObserveArgs observed{.q = layer.observed_q,
                             .kv = layer.kv,
                             .first_lane = layer.first_lane,
                             .unseen = layer.unseen,
                             .q_heads = layer.q_heads,
                             .kv_heads = layer.kv_heads,
                             .scale = layer.scale};
  layer.backend->row_lse(observed, lse);
  layer.backend->column_mass(observed, lse, sums, TensorView{});
}

void sum_observed_attention(const LayerView& layer, const TensorView& lse, const TensorView& sums) {
  layer.backend->fill(sums, 0.0f);
  add_observed_attention(layer, lse, sums);
}

}  // namespace pkv
