// Chooses patterns of sparse attention, for backends whose memory is the host's. Sums in float64.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <numeric>
#include <span>
#include <vector>

#include "kernels/check.h"
#include "kernels/host_backend.h"

namespace pkv {
namespace {

using Masses = std::vector<double>;

// The sum over the query heads of one KV head.
Masses group_sum(const TensorView& of_heads, int32_t kv_head, int32_t group) {
  Masses sum(static_cast<size_t>(of_heads.cols), 0.0);
  for (int32_t h = kv_head * group; h < (kv_head + 1) * group; ++h) {
    const float* row = of_heads.f32_row(h);
    for (size_t j = 0; j < sum.size(); ++j) sum[j] += row[j];
  }
  return sum;
}

// The out.size() largest of the masses [first, last), the first of equals first, ascending.
void take_best(const Masses& masses, int32_t first, int32_t last, std::span<int32_t> out) {
  std::vector<int32_t> all(static_cast<size_t>(last - first));
  std::iota(all.begin(), all.end(), first);
  const auto end = all.begin() + static_cast<std::ptrdiff_t>(out.size());
  const auto before = [&](int32_t a, int32_t b) {
    const double x = masses[static_cast<size_t>(a)], y = masses[static_cast<size_t>(b)];
    return x != y ? x > y : a < b;
  };
  if (end != all.end()) std::nth_element(all.begin(), end, all.end(), before);
  std::copy(all.begin(), end, out.begin());
  std::sort(out.begin(), out.end());
}

// What the columns that rows see anyway leave of the diagonals: a column's attention lies on as many diagonals as there
// are rows, the one of slot j on those of the indices j and further.
void leave_unexplained(const Masses& columns, std::span<const int32_t> chosen, int32_t rows, Masses& diagonals) {
  const auto explain = [&](int32_t column) {
    const double part = columns[static_cast<size_t>(column)] / rows;
    const auto end = std::min(static_cast<size_t>(column + rows), diagonals.size());
    for (auto i = static_cast<size_t>(column); i < end; ++i) diagonals[i] -= part;
  };
  for (int32_t column = 0; column < kSparseBlock; ++column) explain(column);
  for (const int32_t column : chosen) explain(column);
}

// The attention to be expected `t` blocks behind a row's own, for each t: distance o leads there from so many of a
// block's rows as differs from 64 t by less than 64.
Masses band_masses(const Masses& diagonals) {
  const auto n = static_cast<int32_t>(diagonals.size());
  Masses bands(static_cast<size_t>((n + kSparseBlock - 1) / kSparseBlock), 0.0);
  for (int32_t distance = 0; distance < n; ++distance) {
    const double mass = std::max(0.0, diagonals[static_cast<size_t>(n - 1 - distance)]);
    const int32_t nearer = distance / kSparseBlock;
    const double beyond = static_cast<double>(distance % kSparseBlock) / kSparseBlock;
    bands[static_cast<size_t>(nearer)] += mass * (1 - beyond);
    if (static_cast<size_t>(nearer + 1) < bands.size()) bands[static_cast<size_t>(nearer + 1)] += mass * beyond;
  }
  return bands;
}

// Pairs that the pattern leaves of the prompt's rows, block by block of them.
double count_pairs(std::span<const int32_t> columns, std::span<const int32_t> bands, int32_t n,
                   const SparsePattern& pattern) {
  double pairs = 0;
  std::vector<bool> seen;  // blocks
  for (int32_t block = 0; block * kSparseBlock < n; ++block) {
    const int32_t first = block * kSparseBlock;
    const auto rows = static_cast<double>(std::min(kSparseBlock, n - first));
    pairs += rows * (rows + 1) / 2;  // of the block with itself
    if (pattern.is_dense(block)) {
      pairs += rows * first;
      continue;
    }
    seen.assign(static_cast<size_t>(block) + 1, false);
    seen[0] = true;
    for (const int32_t band : bands) {
      if (band <= block) seen[static_cast<size_t>(block - band)] = true;
    }
    const auto blocks = std::count(seen.begin(), seen.end() - 1, true);
    const auto outside = std::count_if(columns.begin(), columns.end(), [&](int32_t column) {
      return column < first && !seen[static_cast<size_t>(column / kSparseBlock)];
    });
    pairs += rows * static_cast<double>(blocks * kSparseBlock + outside);
  }
  return pairs;
}

}  // namespace

void HostBackend::choose_pattern(const PatternMasses& masses, const SparsePattern& pattern, const TensorView& pairs) {
  const auto kv_heads = static_cast<int32_t>(pattern.bands.rows), n = static_cast<int32_t>(masses.columns.cols);
  const auto group = static_cast<int32_t>(masses.columns.rows) / kv_heads;
  PKV_CHECK(pattern.columns.cols + kSparseBlock <= pattern.dense_from && pattern.dense_from <= n,
            "more columns than there are slots");
  PKV_CHECK(pattern.bands.cols >= 2 && (pattern.bands.cols - 1) * kSparseBlock < n, "more bands than there are blocks");
  for (int32_t g = 0; g < kv_heads; ++g) {
    const std::span<int32_t> columns(pattern.columns.i32_row(g), static_cast<size_t>(pattern.columns.cols));
    const std::span<int32_t> bands(pattern.bands.i32_row(g), static_cast<size_t>(pattern.bands.cols));
    const Masses of_columns = group_sum(masses.columns, g, group);
    take_best(of_columns, kSparseBlock, pattern.dense_from, columns);
    Masses diagonals = group_sum(masses.diagonals, g, group);
    leave_unexplained(of_columns, columns, masses.rows, diagonals);
    const Masses of_bands = band_masses(diagonals);
    bands[0] = 0;
    bands[1] = 1;
    take_best(of_bands, 2, static_cast<int32_t>(of_bands.size()), bands.subspan(2));
    pairs.f64()[g] = count_pairs(columns, bands, n, pattern);
  }
}

}  // namespace pkv
