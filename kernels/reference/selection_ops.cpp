// The reference backend's scores of entries and selection of slots: group reduction, pooling and top-k.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "kernels/check.h"
#include "kernels/reference/reference_backend.h"

namespace pkv {

void ReferenceBackend::reduce_groups(const TensorView& sums, GroupReduce reduce, const TensorView& out) {
  PKV_CHECK(out.rows > 0 && sums.rows % out.rows == 0 && sums.cols == out.cols, "shapes of reduce_groups");
  const int64_t group = sums.rows / out.rows;
  for (int64_t g = 0; g < out.rows; ++g) {
    for (int64_t j = 0; j < out.cols; ++j) {
      double sum = 0, highest = -INFINITY;
      for (int64_t h = g * group; h < (g + 1) * group; ++h) {
        sum += sums.f32_row(h)[j];
        highest = std::max<double>(highest, sums.f32_row(h)[j]);
      }
      const double mean = sum / static_cast<double>(group);
      const double result = reduce == GroupReduce::kMax ? highest : reduce == GroupReduce::kSum ? sum : mean;
      out.f32_row(g)[j] = static_cast<float>(result);
    }
  }
}

void ReferenceBackend::pool_scores(const TensorView& scores, PoolKind kind, int32_t kernel, const TensorView& out) {
  PKV_CHECK(kernel > 0 && kernel % 2 == 1, "a pooling kernel is odd");
  const int64_t reach = kind == PoolKind::kNone ? 0 : kernel / 2;
  for (int64_t r = 0; r < scores.rows; ++r) {
    const float* from = scores.f32_row(r);
    for (int64_t j = 0; j < scores.cols; ++j) {
      const int64_t first = std::max<int64_t>(0, j - reach), last = std::min(scores.cols - 1, j + reach);
      float highest = -INFINITY;
      double sum = 0;
      for (int64_t i = first; i <= last; ++i) {
        highest = std::max(highest, from[i]);
        sum += from[i];
      }
      out.f32_row(r)[j] = kind == PoolKind::kAvg ? static_cast<float>(sum / kernel) : highest;
    }
  }
}

void ReferenceBackend::score_entries(const EntryScoring& scoring, const TensorView& scores) {
  const auto columns = static_cast<int32_t>(scores.cols);
  for (int32_t g = 0; g < static_cast<int32_t>(scores.rows); ++g) {
    float* row = scores.f32_row(g);
    for (int32_t j = 0; j < columns; ++j) row[j] = score_entry(scoring, g, j, columns, row[j]);
  }
}

void ReferenceBackend::select_top(const TensorView& scores, int32_t count, const TensorView& kept) {
  PKV_CHECK(count >= 0 && count <= scores.cols && count <= kept.cols, "more columns to select than there are");
  std::vector<int32_t> order(static_cast<size_t>(scores.cols));
  for (int64_t r = 0; r < scores.rows; ++r) {
    const float* score = scores.f32_row(r);
    std::iota(order.begin(), order.end(), 0);
    // Stable: among equal scores the smaller column stays first.
    std::stable_sort(order.begin(), order.end(), [score](int32_t a, int32_t b) { return score[a] > score[b]; });
    std::sort(order.begin(), order.begin() + count);
    std::copy_n(order.begin(), count, kept.i32_row(r));
  }
}

}  // namespace pkv
