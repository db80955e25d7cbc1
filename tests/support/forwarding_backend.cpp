// Every operation by name.
#include "tests/support/forwarding_backend.h"

#include "kernels/status_macros.h"

namespace pkv::test {

void ForwardingBackend::run(std::string_view, absl::FunctionRef<void()> forward) { forward(); }

absl::Status ForwardingBackend::reserve(std::string_view, size_t) { return absl::OkStatus(); }

// ---- memory

absl::StatusOr<Tensor> ForwardingBackend::allocate(int64_t rows, int64_t cols, DType dtype) {
  PKV_RETURN_IF_ERROR(reserve("allocate", static_cast<size_t>(rows * cols) * dtype_bytes(dtype)));
  return inner_->allocate(rows, cols, dtype);
}

absl::StatusOr<std::shared_ptr<std::byte>> ForwardingBackend::allocate_lazy(size_t bytes) {
  PKV_RETURN_IF_ERROR(reserve("allocate_lazy", bytes));
  return inner_->allocate_lazy(bytes);
}

absl::StatusOr<Staged> ForwardingBackend::allocate_staged(size_t bytes) {
  PKV_RETURN_IF_ERROR(reserve("allocate_staged", bytes));
  return inner_->allocate_staged(bytes);
}

void ForwardingBackend::commit(const Staged& staged, size_t offset, size_t bytes) {
  run("commit", [&] { inner_->commit(staged, offset, bytes); });
}

void ForwardingBackend::upload(const TensorView& to, const void* from) {
  run("upload", [&] { inner_->upload(to, from); });
}

void ForwardingBackend::fill(const TensorView& to, float value) {
  run("fill", [&] { inner_->fill(to, value); });
}

void ForwardingBackend::copy(const TensorView& to, const TensorView& from) {
  run("copy", [&] { inner_->copy(to, from); });
}

void ForwardingBackend::fetch(std::span<const Fetch> reads) {
  run("fetch", [&] { inner_->fetch(reads); });
}

void ForwardingBackend::sync() {
  run("sync", [&] { inner_->sync(); });
}

absl::StatusOr<std::unique_ptr<Weight>> ForwardingBackend::prepare_weight(const WeightSource& source) {
  return inner_->prepare_weight(source);
}

// ---- dense operations

void ForwardingBackend::embed(const Weight& table, const int32_t* ids, const TensorView& out) {
  run("embed", [&] { inner_->embed(table, ids, out); });
}

void ForwardingBackend::rms_norm(const TensorView& x, const TensorView& gain, float eps, const TensorView& out) {
  run("rms_norm", [&] { inner_->rms_norm(x, gain, eps, out); });
}

void ForwardingBackend::linear(const TensorView& x, const Weight& weight, bool accumulate, Phase phase,
                               const TensorView& out) {
  run("linear", [&] { inner_->linear(x, weight, accumulate, phase, out); });
}

void ForwardingBackend::add_bias(const TensorView& x, const TensorView& bias) {
  run("add_bias", [&] { inner_->add_bias(x, bias); });
}

void ForwardingBackend::rope(const TensorView& x, const int32_t* positions, const RopeSpec& spec) {
  run("rope", [&] { inner_->rope(x, positions, spec); });
}

void ForwardingBackend::turn_rows(const TensorView& x, int32_t delta, const RopeSpec& spec) {
  run("turn_rows", [&] { inner_->turn_rows(x, delta, spec); });
}

void ForwardingBackend::silu_mul(const TensorView& gate, const TensorView& up) {
  run("silu_mul", [&] { inner_->silu_mul(gate, up); });
}

// ---- cache and attention

void ForwardingBackend::set_page_ids(int32_t* page_ids, const PageEdit* edits, int32_t count) {
  run("set_page_ids", [&] { inner_->set_page_ids(page_ids, edits, count); });
}

void ForwardingBackend::write_kv(const TensorView& k, const TensorView& v, const int32_t* positions, const KvView& kv,
                                 const RowSpans& spans, int32_t kv_heads) {
  run("write_kv", [&] { inner_->write_kv(k, v, positions, kv, spans, kv_heads); });
}

void ForwardingBackend::attend(const AttendArgs& args) {
  run("attend", [&] { inner_->attend(args); });
}

// ---- observation and selection

void ForwardingBackend::row_lse(const ObserveArgs& args, const TensorView& lse) {
  run("row_lse", [&] { inner_->row_lse(args, lse); });
}

void ForwardingBackend::column_mass(const ObserveArgs& args, const TensorView& lse, const TensorView& sums,
                                    const TensorView& squares) {
  run("column_mass", [&] { inner_->column_mass(args, lse, sums, squares); });
}

void ForwardingBackend::diagonal_mass(const ObserveArgs& args, const TensorView& lse, const TensorView& sums) {
  run("diagonal_mass", [&] { inner_->diagonal_mass(args, lse, sums); });
}

void ForwardingBackend::choose_pattern(const PatternMasses& masses, const SparsePattern& pattern,
                                       const TensorView& pairs) {
  run("choose_pattern", [&] { inner_->choose_pattern(masses, pattern, pairs); });
}

void ForwardingBackend::value_norms(const KvView& kv, int32_t first_lane, int32_t kv_heads, const TensorView& factors,
                                    const TensorView& norms) {
  run("value_norms", [&] { inner_->value_norms(kv, first_lane, kv_heads, factors, norms); });
}

void ForwardingBackend::weigh_groups(const TensorView& squares, const TensorView& weights, float scale,
                                     const TensorView& out) {
  run("weigh_groups", [&] { inner_->weigh_groups(squares, weights, scale, out); });
}

void ForwardingBackend::merge_scores(const TensorView& other, bool by_mean, const TensorView& scores) {
  run("merge_scores", [&] { inner_->merge_scores(other, by_mean, scores); });
}

void ForwardingBackend::reduce_groups(const TensorView& sums, GroupReduce reduce, const TensorView& out) {
  run("reduce_groups", [&] { inner_->reduce_groups(sums, reduce, out); });
}

void ForwardingBackend::pool_scores(const TensorView& scores, PoolKind kind, int32_t kernel, const TensorView& out) {
  run("pool_scores", [&] { inner_->pool_scores(scores, kind, kernel, out); });
}

void ForwardingBackend::score_entries(const EntryScoring& scoring, const TensorView& scores) {
  run("score_entries", [&] { inner_->score_entries(scoring, scores); });
}

void ForwardingBackend::select_top(const TensorView& scores, int32_t window, const TensorView& counts,
                                   const TensorView& kept) {
  run("select_top", [&] { inner_->select_top(scores, window, counts, kept); });
}

void ForwardingBackend::share_layer(const TensorView& scores, const LayerShare& share, const TensorView& counts) {
  run("share_layer", [&] { inner_->share_layer(scores, share, counts); });
}

void ForwardingBackend::count_for_recall(const TensorView& scores, const TensorView& mass, const RecallShare& share,
                                         const TensorView& counts, const TensorView& recalls) {
  run("count_for_recall", [&] { inner_->count_for_recall(scores, mass, share, counts, recalls); });
}

void ForwardingBackend::recall(const TensorView& mass, const TensorView& kept, const TensorView& counts,
                               const TensorView& recalls) {
  run("recall", [&] { inner_->recall(mass, kept, counts, recalls); });
}

void ForwardingBackend::gather(const KvView& kv, int32_t from, const TensorView& kept, const TensorView& counts,
                               int32_t to) {
  run("gather", [&] { inner_->gather(kv, from, kept, counts, to); });
}

void ForwardingBackend::key_norms(const KvView& kv, int32_t first_lane, const TensorView& norms) {
  run("key_norms", [&] { inner_->key_norms(kv, first_lane, norms); });
}

void ForwardingBackend::key_similarity(const KvView& kv, int32_t first_lane, const TensorView& unit_sums,
                                       const TensorView& cosines) {
  run("key_similarity", [&] { inner_->key_similarity(kv, first_lane, unit_sums, cosines); });
}

void ForwardingBackend::turn_keys(const KvView& kv, int32_t first_lane, int32_t lanes, int32_t first_slot,
                                  int32_t delta, const RopeSpec& spec) {
  run("turn_keys", [&] { inner_->turn_keys(kv, first_lane, lanes, first_slot, delta, spec); });
}

void ForwardingBackend::write_turned(const TurnedRows& rows, const RopeSpec& spec) {
  run("write_turned", [&] { inner_->write_turned(rows, spec); });
}

void ForwardingBackend::take_columns(const TensorView& from, const TensorView& columns, const TensorView& out) {
  run("take_columns", [&] { inner_->take_columns(from, columns, out); });
}

void ForwardingBackend::choose_slots(const EvictingStep& step) {
  run("choose_slots", [&] { inner_->choose_slots(step); });
}

void ForwardingBackend::score_new_entries(const EvictingStep& step, const TensorView& k) {
  run("score_new_entries", [&] { inner_->score_new_entries(step, k); });
}

void ForwardingBackend::keep_queries(const EvictingStep& step, const TensorView& q) {
  run("keep_queries", [&] { inner_->keep_queries(step, q); });
}

void ForwardingBackend::add_attention(const EvictingStep& step, const TokenQueries& queries) {
  run("add_attention", [&] { inner_->add_attention(step, queries); });
}

void ForwardingBackend::set_scores(const ScoredLanes& lanes, const TensorView& scores, int32_t newest) {
  run("set_scores", [&] { inner_->set_scores(lanes, scores, newest); });
}

void ForwardingBackend::order_entries(const ScoredLanes& lanes, const TensorView& order, const TensorView& counts) {
  run("order_entries", [&] { inner_->order_entries(lanes, order, counts); });
}

// ---- logits

void ForwardingBackend::sample_rows(const SampleArgs& args) {
  run("sample_rows", [&] { inner_->sample_rows(args); });
}

void ForwardingBackend::token_logprobs(const LogprobArgs& args) {
  run("token_logprobs", [&] { inner_->token_logprobs(args); });
}

void ForwardingBackend::compare_rows(const TensorView& logits, const TensorView& baseline, const TensorView& results) {
  run("compare_rows", [&] { inner_->compare_rows(logits, baseline, results); });
}

}  // namespace pkv::test
