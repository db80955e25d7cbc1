// Tokens to choose from, and log-probabilities.
#include "kernels/cpu/sampling/sampling.h"

#include <cmath>

#include "kernels/cpu/parallel.h"
#include "kernels/cpu/sampling/ranking.h"

namespace pkv {
namespace {

void sample_row(const SampleArgs& args, int64_t r, const ElementwiseKernels& kernels) {
  const SampleRow& row = args.rows[r];
  if (row.changed >= 0) row.edits[row.changed] = row.change;
  if (row.ranked == 0) return;
  float* logits = args.logits.f32_row(r);
  auto* ranked = row_as<RankedToken>(args.ranked, r);
  apply_edits(row.edits, row.edit_count, row.no_end != 0, logits);
  RowRanking(logits, args.logits.cols, kernels).best(row.ranked, ranked);
  if (row.mass_scale != 0) {
    *args.mass.f32_row(r) =
        static_cast<float>(kernels.exp_sum(logits, args.logits.cols, ranked[0].logit, row.mass_scale));
  }
  restore_edits(row.edits, row.edit_count, logits);
  for (int32_t i = 0; i < row.ranked; ++i) ranked[i].before = logits[ranked[i].token];
}

void logprob_row(const LogprobArgs& args, int64_t r, const ElementwiseKernels& kernels) {
  const LogprobRow& row = args.rows[r];
  if (row.ranked < 0) return;
  const float* logits = args.logits.f32_row(r);
  const RowRanking ranking(logits, args.logits.cols, kernels);
  const float top = ranking.largest();
  const double sum = kernels.exp_sum(logits, args.logits.cols, top, 1.0f);
  *args.log_sum_exp.f32_row(r) = static_cast<float>(static_cast<double>(top) + std::log(sum));
  if (row.target >= 0) *args.target.f32_row(r) = logits[row.target];
  if (row.ranked > 0) ranking.best(row.ranked, row_as<RankedToken>(args.ranked, r));
}

}  // namespace

void cpu_sample_rows(const SampleArgs& args, const ElementwiseKernels& kernels, ThreadPool& pool) {
  parallel_for(pool, args.logits.rows, args.logits.cols, [&](int64_t row) { sample_row(args, row, kernels); });
}

void cpu_token_logprobs(const LogprobArgs& args, const ElementwiseKernels& kernels, ThreadPool& pool) {
  parallel_for(pool, args.logits.rows, args.logits.cols, [&](int64_t row) { logprob_row(args, row, kernels); });
}

}  // namespace pkv
