// What comes of rows of logits, rows in parallel. The operations are those of Backend (kernels/backend.h) with the same
// arguments.
#pragma once

#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/sampling.h"

namespace pkv {

void cpu_sample_rows(const SampleArgs& args, const ElementwiseKernels& kernels, ThreadPool& pool);
void cpu_token_logprobs(const LogprobArgs& args, const ElementwiseKernels& kernels, ThreadPool& pool);
void cpu_compare_rows(const TensorView& logits, const TensorView& baseline, const TensorView& results,
                      ThreadPool& pool);

}  // namespace pkv
