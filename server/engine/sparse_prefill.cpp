#include "server/engine/sparse_prefill.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/check.h"
#include "kernels/status_macros.h"
#include "server/policy/policy.h"

namespace pkv {
namespace {

// The newest rows of the prompt: what the pattern is chosen by, and what sees everything (MInference's last_q).
constexpr int32_t kObservedRows = 64;
// Of them at once: how diagonals are added up depends on it, so it does not depend on who else runs.
constexpr int32_t kStepRows = 16;
static_assert(kObservedRows % kStepRows == 0 && kObservedRows <= kSparseBlock);
constexpr int32_t kSampleInterval = 512;

int64_t step_work_of(const SparseShape& shape) {
  // Log-sum-exps, columns, diagonals: three passes over the keys.
  return int64_t{3} * kStepRows * shape.tokens * shape.q_heads * shape.head_dim;
}

}  // namespace

int32_t SparseShape::dense_from() const { return std::max(0, tokens - kObservedRows); }

bool SparseShape::leaves_out() const {
  // The last row of the last block that is not dense.
  return columns() + kSparseBlock <= dense_from() && dense_from() / kSparseBlock > bands() + 1;
}

int32_t SparsePrefill::samples(const SparseShape& shape) {
  return shape.dense_from() / kSparseBlock * kSparseBlock / kSampleInterval;
}

TensorSet<SparsePrefill> SparsePrefill::tensors(const SparseShape& shape) {
  const int64_t width = int64_t{shape.q_heads} * shape.head_dim;
  const int64_t measured = int64_t{shape.layers} * samples(shape);
  return {{&SparsePrefill::queries_, kObservedRows, width},
          {&SparsePrefill::lse_, kStepRows, shape.q_heads},
          {&SparsePrefill::column_masses_, shape.q_heads, shape.tokens},
          {&SparsePrefill::diagonal_masses_, shape.q_heads, shape.tokens},
          {&SparsePrefill::columns_, shape.kv_heads, shape.columns(), DType::kI32},
          {&SparsePrefill::bands_, shape.kv_heads, shape.bands(), DType::kI32},
          {&SparsePrefill::pairs_, shape.layers, shape.kv_heads, DType::kF64},
          {&SparsePrefill::seen_lse_, measured, shape.q_heads},
          {&SparsePrefill::whole_lse_, measured, shape.q_heads},
          {&SparsePrefill::unused_out_, 1, width}};
}

absl::StatusOr<std::unique_ptr<SparsePrefill>> SparsePrefill::create(Backend& backend, const SparseShape& shape) {
  PKV_CHECK(shape.leaves_out(), "nothing would be left out");
  std::unique_ptr<SparsePrefill> made(new SparsePrefill(backend, shape));
  PKV_RETURN_IF_ERROR(tensors(shape).allocate(backend, *made));
  return made;
}

int64_t SparsePrefill::layer_work(const SparseShape& shape) { return kObservedRows / kStepRows * step_work_of(shape); }

void SparsePrefill::end_layer() {
  ++layer_;
  keys_ = queries_taken_ = observed_ = 0;
  chosen_ = false;
}

void SparsePrefill::take_queries(const TensorView& q) {
  backend_.copy(queries_.view().slice_rows(queries_taken_, q.rows), q);
  queries_taken_ += static_cast<int32_t>(q.rows);
}

int64_t SparsePrefill::step_work() const { return step_work_of(shape_); }

void SparsePrefill::step(const KvView& kv) {
  const ObserveArgs args{.q = queries_.view().slice_rows(observed_, kStepRows),
                         .kv = kv,
                         .unseen = kObservedRows - 1 - observed_,
                         .q_heads = shape_.q_heads,
                         .kv_heads = shape_.kv_heads,
                         .scale = attention_scale(shape_.head_dim)};
  const TensorView lse = lse_.view();
  if (observed_ == 0) {
    backend_.fill(column_masses_.view(), 0);
    backend_.fill(diagonal_masses_.view(), 0);
  }
  backend_.observe(args, lse, column_masses_.view(), {});
  backend_.diagonal_mass(args, lse, diagonal_masses_.view());
  observed_ += kStepRows;
  if (observed_ < kObservedRows) return;
  backend_.choose_pattern(
      {.columns = column_masses_.view(), .diagonals = diagonal_masses_.view(), .rows = kObservedRows}, pattern(),
      pairs_.view().slice_rows(layer_, 1));
  chosen_ = true;
}

SparsePattern SparsePrefill::pattern() const { return {columns_.view(), bands_.view(), shape_.dense_from()}; }

int32_t SparsePrefill::rows_to_sample(int32_t first, int32_t rows) {
  return std::min(rows, kSampleInterval - first % kSampleInterval);
}

void SparsePrefill::measure(const AttendArgs& step, int32_t row) {
  if ((row + 1) % kSampleInterval != 0 || pattern().is_dense(row / kSparseBlock)) return;
  AttendArgs one = step;
  one.skipped_rows = static_cast<int32_t>(step.q.rows) - 1;
  one.q = step.q.slice_rows(one.skipped_rows, 1);
  one.out = unused_out_.view();
  one.lse = seen_lse_.view().slice_rows(measured_, 1);
  one.sparse = pattern();
  backend_.attend(one);
  one.lse = whole_lse_.view().slice_rows(measured_, 1);
  one.sparse = {};
  backend_.attend(one);
  ++measured_;
}

void SparsePrefill::read(std::vector<Fetch>& reads) {
  pairs_read_.resize(static_cast<size_t>(pairs_.view().rows * pairs_.view().cols));
  reads.push_back({pairs_read_.data(), pairs_.view()});
  if (measured_ == 0) return;
  seen_read_.resize(static_cast<size_t>(measured_) * static_cast<size_t>(shape_.q_heads));
  whole_read_.resize(seen_read_.size());
  reads.push_back({seen_read_.data(), seen_lse_.rows(measured_)});
  reads.push_back({whole_read_.data(), whole_lse_.rows(measured_)});
}

PrefillReport SparsePrefill::report() const {
  const double n = shape_.tokens, all_pairs = n * (n + 1) / 2;
  PrefillReport report{.attended_share = std::accumulate(pairs_read_.begin(), pairs_read_.end(), 0.0) / all_pairs /
                                         static_cast<double>(pairs_read_.size()),
                       .measured_rows = measured_};
  for (size_t i = 0; i < seen_read_.size(); ++i) {
    const double lost = std::clamp(1 - std::exp(static_cast<double>(seen_read_[i]) - whole_read_[i]), 0.0, 1.0);
    report.lost_mean += lost / static_cast<double>(seen_read_.size());
    report.lost_max = std::max(report.lost_max, lost);
  }
  return report;
}

}  // namespace pkv
