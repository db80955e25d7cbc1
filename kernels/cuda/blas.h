// Matrix products of the device: cuBLAS (cublas.h), and in the simulator plain loops (sim/sim_blas.h).
#pragma once

#include "kernels/operation_args.h"
#include "kernels/tensor.h"

namespace pkv::gpu {

class Blas {
 public:
  virtual ~Blas() = default;
  // out = x w^T (+ out when `accumulate`), in stream order. x [R, K], w [N, K] dense, out [R, N]; float32. For a given
  // Phase a row's result does not depend on R.
  virtual void multiply(const TensorView& x, const float* w, bool accumulate, Phase phase, const TensorView& out) = 0;
};

}  // namespace pkv::gpu
