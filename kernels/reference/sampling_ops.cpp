// The reference backend's operations on logits: every row is sorted as a whole.
#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/check.h"
#include "kernels/reference/reference_backend.h"

namespace pkv {
namespace {

// The `count` best of a row of V logits, in order.
void rank_row(const float* logits, int64_t vocabulary, int32_t count, RankedToken* best) {
  PKV_CHECK(count <= vocabulary && count <= kMostRanked, "more tokens to rank than there are");
  std::vector<RankedToken> all;
  for (int64_t v = 0; v < vocabulary; ++v) {
    const float logit = std::isnan(logits[v]) ? -INFINITY : logits[v];
    all.push_back({.token = static_cast<int32_t>(v), .logit = logit, .before = logit});
  }
  std::sort(all.begin(), all.end(), [](const RankedToken& a, const RankedToken& b) {
    return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
  });
  std::copy_n(all.begin(), count, best);
}

double largest(const float* logits, int64_t vocabulary) {
  double highest = -INFINITY;
  for (int64_t v = 0; v < vocabulary; ++v) highest = std::fmax(highest, logits[v]);
  return highest;
}

double log_sum_exp(const float* logits, int64_t vocabulary) {
  const double top = largest(logits, vocabulary);
  double sum = 0;
  for (int64_t v = 0; v < vocabulary; ++v) sum += std::exp(logits[v] - top);
  return top + std::log(sum);
}

int64_t best_token(const TensorView& logits, int64_t row) {
  return std::max_element(logits.f32_row(row), logits.f32_row(row) + logits.cols) - logits.f32_row(row);
}

}  // namespace

void ReferenceBackend::sample_rows(const SampleArgs& args) {
  const int64_t vocabulary = args.logits.cols;
  for (int64_t r = 0; r < args.logits.rows; ++r) {
    const SampleRow& row = args.rows[r];
    if (row.changed >= 0) row.edits[row.changed] = row.change;
    if (row.ranked == 0) continue;
    float* logits = args.logits.f32_row(r);
    apply_edits(row.edits, row.edit_count, row.no_end != 0, logits);
    rank_row(logits, vocabulary, row.ranked, row_as<RankedToken>(args.ranked, r));
    if (row.mass_scale != 0) {
      const double top = largest(logits, vocabulary);
      double mass = 0;
      for (int64_t v = 0; v < vocabulary; ++v) mass += std::exp((logits[v] - top) * row.mass_scale);
      *args.mass.f32_row(r) = static_cast<float>(mass);
    }
    restore_edits(row.edits, row.edit_count, logits);
    auto* ranked = row_as<RankedToken>(args.ranked, r);
    for (int32_t i = 0; i < row.ranked; ++i) ranked[i].before = logits[ranked[i].token];
  }
}

void ReferenceBackend::token_logprobs(const LogprobArgs& args) {
  for (int64_t r = 0; r < args.logits.rows; ++r) {
    const LogprobRow& row = args.rows[r];
    if (row.ranked < 0) continue;
    const float* logits = args.logits.f32_row(r);
    *args.log_sum_exp.f32_row(r) = static_cast<float>(log_sum_exp(logits, args.logits.cols));
    if (row.target >= 0) *args.target.f32_row(r) = logits[row.target];
    rank_row(logits, args.logits.cols, row.ranked, row_as<RankedToken>(args.ranked, r));
  }
}

void ReferenceBackend::compare_rows(const TensorView& logits, const TensorView& baseline, const TensorView& results) {
  const float* base = baseline.f32();
  const double base_lse = log_sum_exp(base, baseline.cols);
  for (int64_t r = 0; r < logits.rows; ++r) {
    const float* row = logits.f32_row(r);
    const double lse = log_sum_exp(row, logits.cols);
    double kl = 0;
    for (int64_t v = 0; v < logits.cols; ++v) {
      kl += std::exp(base[v] - base_lse) * ((base[v] - base_lse) - (row[v] - lse));
    }
    // Rounding may leave it a little below.
    const bool same_best = best_token(logits, r) == best_token(baseline, 0);
    *row_as<RowComparison>(results, r) = {.kl = std::max(kl, 0.0), .same_best = same_best ? 1 : 0};
  }
}

}  // namespace pkv
