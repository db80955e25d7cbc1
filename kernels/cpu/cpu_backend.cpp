// Element by element operations and the wiring of the CPU backend.
#include "kernels/cpu/cpu_backend.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"
#include "kernels/cpu/lanes/evict.h"
#include "kernels/cpu/lanes/select.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/sampling/sampling.h"
#include "kernels/status_macros.h"

namespace pkv {
namespace {

// An exponential, or the decoding of a packed weight, against an element read and written.
constexpr int64_t kHeavyElement = 4;

const PackedView& packed(const Weight& weight) { return static_cast<const PackedWeight&>(weight).view(); }

// Measured once, so that all backends of a process compute alike.
const CpuPaths& measured_paths(bool fast) {
  static const PathTimes kTimes = measure_paths(detect_isa());
  static const CpuPaths kPaths = faster_paths(detect_isa(), kTimes);
  if (!fast) return kPaths;
  static const CpuPaths kFast = faster_paths(detect_isa(), with_tolerant_products(detect_isa(), kTimes));
  return kFast;
}

}  // namespace

CpuBackend::CpuBackend(CpuPaths paths, bool exact, int32_t threads)
    : paths_(std::move(paths)),
      exact_(exact),
      pool_(threads),
      elementwise_(select_elementwise_kernels(paths_.features)),
      linear_(select_linear_kernels(paths_), exact, pool_),
      attention_(paths_.prompt_attention, exact, pool_) {}

std::string CpuBackend::description() const {
  return absl::StrCat("cpu (", describe_isa(paths_.features), "; ", pool_.threads(),
                      pool_.threads() == 1 ? " thread" : " threads", exact_ ? "; float32 products" : "",
                      paths_.measured.empty() ? "" : "; measured: ", paths_.measured, ")");
}

absl::StatusOr<std::unique_ptr<Weight>> CpuBackend::prepare_weight(const WeightSource& source) {
  PKV_ASSIGN_OR_RETURN(std::unique_ptr<PackedWeight> weight, pack_weight(source, arena_, pool_));
  return std::unique_ptr<Weight>(std::move(weight));
}

// ---- dense operations

void CpuBackend::embed(const Weight& table, const int32_t* ids, const TensorView& out) {
  parallel_for(pool_, out.rows, kHeavyElement * out.cols, [&](int64_t row) {
    PKV_CHECK(ids[row] >= 0 && ids[row] < table.rows(), "token id");
    unpack_row(packed(table), ids[row], out.f32_row(row));
  });
}

void CpuBackend::rms_norm(const TensorView& x, const TensorView& gain, float eps, const TensorView& out) {
  parallel_for(pool_, x.rows, x.cols,
               [&](int64_t row) { elementwise_.rms_norm(x.f32_row(row), gain.f32(), eps, x.cols, out.f32_row(row)); });
}

void CpuBackend::linear(const TensorView& x, const Weight& weight, bool accumulate, Phase phase,
                        const TensorView& out) {
  linear_.run(x, packed(weight), accumulate, phase, out);
}

void CpuBackend::add_bias(const TensorView& x, const TensorView& bias) {
  parallel_for(pool_, x.rows, x.cols, [&](int64_t row) { elementwise_.add(x.f32_row(row), bias.f32(), x.cols); });
}

void CpuBackend::rope(const TensorView& x, const int32_t* positions, const RopeSpec& spec) {
  rope_table_.prepare({positions, static_cast<size_t>(x.rows)}, spec, pool_);
  const auto rotate = spec.pairing == RopePairing::kAdjacent ? elementwise_.rope_adjacent : elementwise_.rope_halves;
  const auto heads = static_cast<int32_t>(x.cols / spec.head_dim);
  parallel_for(pool_, x.rows, x.cols, [&](int64_t row) {
    rotate(x.f32_row(row), rope_table_.cosines(row), rope_table_.sines(row), spec.pairs, heads, spec.head_dim);
  });
}

void CpuBackend::turn_rows(const TensorView& x, int32_t delta, const RopeSpec& spec) {
  RopeSpec turn = spec;
  turn.magnitude = 1.0f;  // it was multiplied in when the rows were rotated first
  RopeTable& table = turn_tables_[static_cast<uint32_t>(delta) % kTurnTables];
  table.prepare(std::span(&delta, 1), turn, pool_);
  const auto rotate = spec.pairing == RopePairing::kAdjacent ? elementwise_.rope_adjacent : elementwise_.rope_halves;
  const auto heads = static_cast<int32_t>(x.cols / spec.head_dim);
  parallel_for(pool_, x.rows, x.cols, [&](int64_t row) {
    rotate(x.f32_row(row), table.cosines(0), table.sines(0), spec.pairs, heads, spec.head_dim);
  });
}

void CpuBackend::silu_mul(const TensorView& gate, const TensorView& up) {
  parallel_for(pool_, gate.rows, kHeavyElement * gate.cols,
               [&](int64_t row) { elementwise_.silu_mul(gate.f32_row(row), up.f32_row(row), gate.cols); });
}

// ---- cache, attention, observation, selection

void CpuBackend::write_kv(const TensorView& k, const TensorView& v, const int32_t* positions, const KvView& kv,
                          const RowSpans& spans, int32_t kv_heads) {
  attention_.write_kv(k, v, positions, kv, spans, kv_heads);
}

void CpuBackend::attend(const AttendArgs& args) { attention_.attend(args); }

void CpuBackend::row_lse(const ObserveArgs& args, const TensorView& lse) { attention_.row_lse(args, lse); }

void CpuBackend::column_mass(const ObserveArgs& args, const TensorView& lse, const TensorView& sums,
                             const TensorView& squares) {
  attention_.column_mass(args, lse, sums, squares);
}

void CpuBackend::value_norms(const KvView& kv, int32_t first_lane, int32_t kv_heads, const TensorView& factors,
                             const TensorView& norms) {
  attention_.value_norms(kv, first_lane, kv_heads, factors, norms);
}

void CpuBackend::weigh_groups(const TensorView& squares, const TensorView& weights, float scale,
                              const TensorView& out) {
  cpu_weigh_groups(squares, weights, scale, out, pool_);
}

void CpuBackend::merge_scores(const TensorView& other, bool by_mean, const TensorView& scores) {
  cpu_merge_scores(other, by_mean, scores, pool_);
}

void CpuBackend::reduce_groups(const TensorView& sums, GroupReduce reduce, const TensorView& out) {
  cpu_reduce_groups(sums, reduce, out, pool_);
}

void CpuBackend::pool_scores(const TensorView& scores, PoolKind kind, int32_t kernel, const TensorView& out) {
  cpu_pool_scores(scores, kind, kernel, out, pool_);
}

void CpuBackend::score_entries(const EntryScoring& scoring, const TensorView& scores) {
  cpu_score_entries(scoring, scores, pool_);
}

void CpuBackend::select_top(const TensorView& scores, int32_t window, const TensorView& counts,
                            const TensorView& kept) {
  cpu_select_top(scores, window, counts, kept, pool_);
}

void CpuBackend::share_layer(const TensorView& scores, const LayerShare& share, const TensorView& counts) {
  cpu_share_layer(scores, share, counts, pool_);
}

void CpuBackend::count_for_recall(const TensorView& scores, const TensorView& mass, const RecallShare& share,
                                  const TensorView& counts, const TensorView& recalls) {
  cpu_count_for_recall(scores, mass, share, counts, recalls, pool_);
}

void CpuBackend::recall(const TensorView& mass, const TensorView& kept, const TensorView& counts,
                        const TensorView& recalls) {
  cpu_recall(mass, kept, counts, recalls, pool_);
}

void CpuBackend::gather(const KvView& kv, int32_t from, const TensorView& kept, const TensorView& counts, int32_t to) {
  attention_.gather(kv, from, kept, counts, to);
}

void CpuBackend::key_norms(const KvView& kv, int32_t first_lane, const TensorView& norms) {
  attention_.key_norms(kv, first_lane, norms);
}

void CpuBackend::key_similarity(const KvView& kv, int32_t first_lane, const TensorView& unit_sums,
                                const TensorView& cosines) {
  attention_.key_similarity(kv, first_lane, unit_sums, cosines);
}

void CpuBackend::turn_keys(const KvView& kv, int32_t first_lane, int32_t lanes, int32_t first_slot, int32_t delta,
                           const RopeSpec& spec) {
  attention_.turn_keys(kv, first_lane, lanes, first_slot, delta, spec);
}

void CpuBackend::write_turned(const TurnedRows& rows, const RopeSpec& spec) {
  RopeSpec turn = spec;
  turn.magnitude = 1.0f;  // that was multiplied in when they turned first
  turned_by_.assign(static_cast<size_t>(rows.rows), rows.delta);
  turned_positions_.resize(turned_by_.size());
  std::iota(turned_positions_.begin(), turned_positions_.end(), 0);
  const RowSpan span{.first_row = 0, .rows = rows.rows, .first_lane = 0};
  KvView kv = rows.kv;
  for (int32_t layer = 0; layer < rows.layers; ++layer) {
    const Lane* first = rows.kv.lanes + layer * rows.lanes_per_layer + rows.first_lane;
    turned_lanes_.assign(first, first + rows.kv_heads);
    for (Lane& lane : turned_lanes_) lane.write_slot = 0;
    kv.lanes = turned_lanes_.data();
    const int64_t at = int64_t{layer} * rows.rows;
    copy(rows.turned, rows.keys.slice_rows(at, rows.rows));
    rope(rows.turned, turned_by_.data(), turn);
    write_kv(rows.turned, rows.values.slice_rows(at, rows.rows), turned_positions_.data(), kv, {&span, 1},
             rows.kv_heads);
  }
}

void CpuBackend::take_columns(const TensorView& from, const TensorView& columns, const TensorView& out) {
  cpu_take_columns(from, columns, out);
}

void CpuBackend::choose_slots(const EvictingStep& step) { cpu_choose_slots(step, pool_); }

void CpuBackend::score_new_entries(const EvictingStep& step, const TensorView& k) {
  cpu_score_new_entries(step, k, pool_);
}

void CpuBackend::set_scores(const ScoredLanes& lanes, const TensorView& scores, int32_t newest) {
  cpu_set_scores(lanes, scores, newest, pool_);
}

void CpuBackend::order_entries(const ScoredLanes& lanes, const TensorView& order, const TensorView& counts) {
  cpu_order_entries(lanes, order, counts, pool_);
}

// ---- logits

void CpuBackend::run_on_host(int64_t items, int64_t work, HostBody body) { parallel_for(pool_, items, work, body); }

void CpuBackend::sample_rows(const SampleArgs& args) { cpu_sample_rows(args, elementwise_, pool_); }

void CpuBackend::token_logprobs(const LogprobArgs& args) { cpu_token_logprobs(args, elementwise_, pool_); }

void CpuBackend::compare_rows(const TensorView& logits, const TensorView& baseline, const TensorView& results) {
  cpu_compare_rows(logits, baseline, results, pool_);
}

absl::StatusOr<std::unique_ptr<Backend>> make_cpu_backend(const BackendOptions& options) {
  if (options.threads < 0 || options.threads > 1024) {
    return absl::InvalidArgumentError(absl::StrCat("threads must be between 0 and 1024, not ", options.threads));
  }
  PKV_ASSIGN_OR_RETURN(const IsaFeatures features, cap_isa(detect_isa(), options.isa));
  // Who names a path gets it, and the exact mode multiplies float32 on all of them.
  CpuPaths paths = options.isa.empty() && !options.exact ? measured_paths(options.fast) : highest_paths(features);
  paths.tolerant_in_8_bits = paths.tolerant_in_8_bits && options.fast;
  return std::make_unique<CpuBackend>(std::move(paths), options.exact,
                                      options.threads == 0 ? available_cores() : options.threads);
}

}  // namespace pkv
