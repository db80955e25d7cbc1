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
  // to 8 bits by group where the weights are quantised; so does prefill where the weights are tolerant, too, and the
  // kernels have it. Everything else is float32.
  void run(const TensorView& x, const PackedView& weight, bool accumulate, Phase phase, const TensorView& out);

 private:
  // The rows of a GEMM as its kernels want them.
  struct GemmRows {
    int64_t count = 0;
    const std::byte* a = nullptr;
    int64_t stride = 0;  // as GemmTile counts
    int64_t row_bytes = 0;
    int64_t step_bytes = 0;         // of kGemmStep inputs
    const float* scales = nullptr;  // of quantised rows
  };

  // What makes a product that run_int8() does not.
  const GemmKernels& gemm_kernels(const PackedView& weight, Phase phase) const;
  void run_gemm(const GemmKernels& kernels, const TensorView& x, const PackedView& weight, bool accumulate,
                const TensorView& out);
  void run_int8(const TensorView& x, const PackedView& weight, bool accumulate, const TensorView& out);
  GemmRows convert_rows(const GemmKernels& kernels, const TensorView& x, const PackedView& weight);
  Int8Rows quantize_rows(const TensorView& x, const PackedView& weight);

  LinearKernels kernels_;
  bool exact_;
  ThreadPool& pool_;
  Scratch activations_;
  std::vector<Scratch> tiles_;     // per thread
  std::vector<Scratch> partials_;  // per thread
};

}  // namespace pkv
