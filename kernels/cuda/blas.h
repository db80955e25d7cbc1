// Matrix products of the device: cuBLAS (cublas.h), and in the simulator plain loops (sim/sim_blas.h).
#pragma once

#include "kernels/tensor.h"

namespace pkv::gpu {

class Blas {
 public:
  virtual ~Blas() = default;
  // out = x w^T (+ out when `accumulate`), in stream order. x [R, K], w [N, K] dense, out [R, N]; float32. A row's
  // result does not depend on R.
  virtual void multiply(const TensorView& x, const float* w, bool accumulate, const TensorView& out) = 0;
};

}  // namespace pkv::gpu
