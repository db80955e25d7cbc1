// Matrix products by cuBLAS.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "kernels/cuda/blas.h"
#include "kernels/cuda/stream.h"

namespace pkv {

// On a stream of the CUDA runtime, which must outlive it.
absl::StatusOr<std::unique_ptr<gpu::Blas>> make_cublas(gpu::Stream& stream);

}  // namespace pkv
