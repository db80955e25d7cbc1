// Matrix products of the device: cuBLASLt (cublas.h), and in the simulator plain loops (sim/sim_blas.h).
#pragma once

#include <cstdint>

#include "kernels/tensor.h"

namespace pkv::gpu {

// bfloat16 factors with as many inputs: a multiple of kMultiple, those that are none being zeros, 16-aligned.
struct BfloatFactors {
  static constexpr int64_t kMultiple = 8;

  const uint16_t* x = nullptr;  // [rows of out, rounded up to Blas::kRows][inputs]; what is beyond may be anything
  const uint16_t* weights = nullptr;  // [columns of out][inputs]
  int64_t inputs = 0;
};

class Blas {
 public:
  static constexpr int64_t kRows = 256;  // of every product

  virtual ~Blas() = default;
  // out = x w^T (+ out when `accumulate`), sums in float32, in stream order. out [R, N] float32. A row's result does
  // not depend on R.
  virtual void multiply(const BfloatFactors& factors, bool accumulate, const TensorView& out) = 0;
};

}  // namespace pkv::gpu
