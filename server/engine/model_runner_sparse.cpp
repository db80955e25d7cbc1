// The model runner's part in sparse prefill: a layer's keys and its pattern before its rows.
#include <algorithm>
#include <cstdint>
#include <limits>

#include "kernels/status_macros.h"
#include "server/engine/model_runner.h"

namespace pkv {

bool ModelRunner::wants_pattern(const Sequence& sequence) const {
  const SparsePrefill* sparse = sequence.prefill()->sparse.get();
  return sparse != nullptr && carries_rows(sequence) && !sparse->is_chosen();
}

absl::StatusOr<int64_t> ModelRunner::pattern_unit(Sequence& sequence, int64_t most) {
  const Sequence::Prefill& prefill = *sequence.prefill();
  SparsePrefill& sparse = *prefill.sparse;
  if (sparse.keys() < sequence.prompt_tokens()) return keys_unit(sequence, most);
  const int32_t tokens = sequence.prompt_tokens();
  const int32_t first = sequence.contract().sparse->dense_from() + sparse.queries();
  if (!sparse.has_queries()) {
    const int32_t rows = std::min(options_.prefill_chunk_rows, tokens - first);
    plan_prefill(sequence, first, rows);
    model_.run_layer(plan_, prefill.layer, prefill.residual.view().slice_rows(first, rows), scratch_, {.keys = false});
    sparse.take_queries(scratch_.q.rows(rows));
    return rows * layer_row_work(model_.shape());  // at most
  }
  plan_prefill(sequence, tokens - 1, 1);  // for the lanes
  sparse.step(plan_.view(prefill.layer));
  return sparse.step_work();
}

absl::StatusOr<int64_t> ModelRunner::keys_unit(Sequence& sequence, int64_t most) {
  const Sequence::Prefill& prefill = *sequence.prefill();
  const ModelShape& shape = model_.shape();
  const int64_t row_work = int64_t{2} * shape.width * shape.kv_heads * shape.head_dim;
  const int32_t first = prefill.sparse->keys();
  const int32_t longest = std::min(options_.prefill_chunk_rows, sequence.prompt_tokens() - first);
  const auto rows = static_cast<int32_t>(std::clamp<int64_t>(most / row_work, 1, longest));
  if (absl::Status status = cache_->append_slots(sequence.lanes()->id(), prefill.layer, rows); !status.ok()) {
    return no_slots(status);
  }
  plan_prefill(sequence, first, rows);
  const TensorView x = prefill.residual.view().slice_rows(first, rows);
  if (prefill.layer == 0) model_.embed(plan_.token_ids, x);
  model_.run_layer(plan_, prefill.layer, x, scratch_, {.queries = false});
  capture_rows(sequence, first, rows);
  prefill.sparse->add_keys(rows);
  return rows * row_work;
}

int32_t ModelRunner::limit_rows(const Sequence& sequence, int32_t longest, PromptWork& work) const {
  const int32_t first = sequence.prefill()->row;
  const int32_t dense = sequence.contract().sparse->dense_from() / kSparseBlock * kSparseBlock;
  if (first >= dense) {
    work.most_seen = std::numeric_limits<int32_t>::max();
    return longest;
  }
  return SparsePrefill::rows_to_sample(first, std::min(longest, dense - first));
}

void ModelRunner::measure_row(Sequence& sequence, int32_t rows) {
  const Sequence::Prefill& prefill = *sequence.prefill();
  const ModelShape& shape = model_.shape();
  prefill.sparse->measure({.q = scratch_.q.rows(rows),
                           .kv = plan_.view(prefill.layer),
                           .spans = plan_.spans,
                           .q_heads = shape.q_heads,
                           .kv_heads = shape.kv_heads,
                           .scale = attention_scale(shape.head_dim),
                           .phase = Phase::kPrefill},
                          prefill.row + rows - 1);
}

}  // namespace pkv
