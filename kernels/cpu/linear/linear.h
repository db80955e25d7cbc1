// Matrix products of the CPU backend: which kernels serve a call, and how its work is cut into tasks.
#pragma once

#include <vector>

#include "kernels/backend.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/scratch.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/tensor.h"

namespace pkv {

// Owns the scratch memory of its calls; one call at a time.
class LinearRunner {
 public:
  LinearRunner(const LinearKernels& kernels, bool exact, ThreadPool& pool);

  // out = x W^T (+ out). x [R, cols], out [R, rows]. In exact mode every product is one of float32 values. Otherwise
  // prefill rounds weights and activations to bfloat16 where the CPU multiplies those, and decode quantises activations
  // to 8 bits by group where the weights are quantised; everything else is float32.
  void run(const TensorView& x, const PackedView& weight, bool accumulate, Phase phase, const TensorView& out);

 private:
  void run_gemm(const GemmKernels& kernels, const TensorView& x, const PackedView& weight, bool accumulate,
                const TensorView& out);
  void run_int8(const TensorView& x, const PackedView& weight, bool accumulate, const TensorView& out);
  // The rows of x as `kernels` want them: pointer and stride in elements.
  const void* convert_rows(const GemmKernels& kernels, const TensorView& x, int64_t* stride);
  Int8Rows quantize_rows(const TensorView& x, const PackedView& weight);

  LinearKernels kernels_;
  bool exact_;
  ThreadPool& pool_;
  Scratch activations_;
  std::vector<Scratch> tiles_;     // per thread
  std::vector<Scratch> partials_;  // per thread
};

}  // namespace pkv
