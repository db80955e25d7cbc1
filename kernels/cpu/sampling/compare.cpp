// Divergence of rows of logits from a baseline's, rows in parallel.
#include <algorithm>
#include <cmath>

#include "kernels/cpu/parallel.h"
#include "kernels/cpu/sampling/sampling.h"

namespace pkv {
namespace {

// A float64 exponential twice a token, in elements (kernels/cpu/parallel.h).
constexpr int64_t kExpElements = 32;

// What a row's log-probabilities follow from: log p = logit - log_sum_exp, in float64.
struct Distribution {
  const float* logits;
  int64_t best;  // the first of equals
  double log_sum_exp;
};

Distribution distribution_of(const float* logits, int64_t vocabulary) {
  const int64_t best = std::max_element(logits, logits + vocabulary) - logits;
  const double top = logits[best];
  double sum = 0;
  for (int64_t v = 0; v < vocabulary; ++v) sum += std::exp(logits[v] - top);
  return {.logits = logits, .best = best, .log_sum_exp = top + std::log(sum)};
}

RowComparison compare(const Distribution& row, const Distribution& baseline, int64_t vocabulary) {
  double kl = 0;
  for (int64_t v = 0; v < vocabulary; ++v) {
    const double log_p = baseline.logits[v] - baseline.log_sum_exp;
    kl += std::exp(log_p) * (log_p - (row.logits[v] - row.log_sum_exp));
  }
  // Rounding may leave it a little below.
  return {.kl = std::max(kl, 0.0), .same_best = row.best == baseline.best ? 1 : 0};
}

}  // namespace

void cpu_compare_rows(const TensorView& logits, const TensorView& baseline, const TensorView& results,
                      ThreadPool& pool) {
  const Distribution base = distribution_of(baseline.f32(), baseline.cols);
  parallel_for(pool, logits.rows, kExpElements * logits.cols, [&](int64_t row) {
    *row_as<RowComparison>(results, row) =
        compare(distribution_of(logits.f32_row(row), logits.cols), base, logits.cols);
  });
}

}  // namespace pkv
