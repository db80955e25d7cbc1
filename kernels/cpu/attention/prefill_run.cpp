#include "kernels/cpu/attention/prefill_run.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <vector>

#include "kernels/cpu/attention/attention.h"

namespace pkv {
namespace {

constexpr int32_t kLineBytes = 64;

int32_t round_up(int32_t value, int32_t unit) { return (value + unit - 1) / unit * unit; }

}  // namespace

int64_t PrefillRun::scratch_floats(int32_t query_rows, int32_t head_dim, const PanelKernels& kernels) {
  const int64_t rows = round_up(query_rows, kernels.rows);
  return rows * (2 * padded_dim(head_dim) + 2) + 2 * kMaxPanelRows * kScoreStride +
         2 * kTileSlots * round_up(head_dim, kMaxPanelCols) + 64;
}

PrefillRun::PrefillRun(const AttendArgs& args, const PanelKernels& kernels, const PrefillRows& rows, float* scratch)
    : args_(args),
      kernels_(kernels),
      rows_(rows),
      d_(args.kv.head_dim),
      stride_(padded_dim(d_)),
      group_(args.q_heads / args.kv_heads),
      query_rows_(rows.rows * group_),
      padded_rows_(round_up(query_rows_, kernels.rows)),
      head_offset_(static_cast<int64_t>(rows.kv_head) * group_ * d_) {
  const int64_t operand_floats = static_cast<int64_t>(kTileSlots) * round_up(d_, kMaxPanelCols);
  keys_ = scratch;
  values_ = keys_ + operand_floats;
  scores_ = values_ + operand_floats;
  acc_ = scores_ + 2 * kMaxPanelRows * kScoreStride;
  max_ = acc_ + static_cast<int64_t>(padded_rows_) * stride_;
  sum_ = max_ + padded_rows_;
  queries_ = sum_ + padded_rows_;
  std::fill(acc_, max_, 0.0f);
  std::fill(max_, sum_, -std::numeric_limits<float>::infinity());
  std::fill(sum_, queries_, 0.0f);
  pack_queries();
}

const float* PrefillRun::query(int32_t m) const {
  return args_.q.f32_row(rows_.first_row + m / group_) + head_offset_ + m % group_ * d_;
}

void PrefillRun::pack_queries() {
  const float* rows[kMaxPanelRows];
  std::vector<float> mixed(static_cast<size_t>(kernels_.rows) * static_cast<size_t>(d_));
  for (int32_t first = 0; first < query_rows_; first += kernels_.rows) {
    const int32_t count = std::min(kernels_.rows, query_rows_ - first);
    for (int32_t r = 0; r < count; ++r) {
      rows[r] = query_for(rows_.pages, query(first + r), mixed.data() + static_cast<int64_t>(r) * d_);
      if (first + kernels_.rows + r >= query_rows_) continue;
      const auto* next = reinterpret_cast<const char*>(query(first + kernels_.rows + r));
      for (int32_t byte = 0; byte < 4 * d_; byte += kLineBytes) __builtin_prefetch(next + byte);
    }
    kernels_.pack_queries(rows, count, d_, args_.scale * std::numbers::log2e_v<float>,
                          queries_ + static_cast<int64_t>(first) * stride_);
  }
}

void PrefillRun::add_panel(int32_t first, int32_t slots, int32_t place) {
  int32_t limits[kMaxPanelRows];
  int32_t count = 0;
  for (int32_t r = 0; r < kernels_.rows; ++r) {
    const int32_t m = first + r;
    limits[r] = m >= query_rows_ ? 0 : place >= slots ? slots : std::clamp(place + m / group_, 0, slots);
    count = std::max(count, limits[r]);
  }
  if (count == 0) return;
  kernels_.attend({.queries = queries_ + static_cast<int64_t>(first) * stride_,
                   .keys = keys_,
                   .values = values_,
                   .limits = limits,
                   .head_dim = d_,
                   .count = count,
                   .scores = scores_},
                  {.max = max_ + first, .sum = sum_ + first, .acc = acc_ + static_cast<int64_t>(first) * stride_});
}

void PrefillRun::finish() const {
  for (int32_t m = 0; m < query_rows_; ++m) {
    const int32_t row = rows_.first_row + m / group_;
    float* out = args_.out.f32_row(row) + head_offset_ + m % group_ * d_;
    const float inverse = 1.0f / sum_[m];
    for (int32_t k = 0; k < d_; ++k) out[k] = acc_[static_cast<int64_t>(m) * stride_ + k] * inverse;
    if (args_.lse.data == nullptr) continue;
    args_.lse.f32_row(row)[rows_.kv_head * group_ + m % group_] =
        max_[m] * std::numbers::ln2_v<float> + std::log(sum_[m]);
  }
}

}  // namespace pkv
