// The CUDA runtime behind the seam of stream.h.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "kernels/cuda/stream.h"

namespace pkv {

// Whether this process can compute on that GPU. OK with its name and what it has; FAILED_PRECONDITION with the one
// thing that is missing: driver, device, architecture, memory pools.
absl::StatusOr<std::string> probe_cuda_device(int32_t device);

// A stream of its own on that GPU, which is usable. Errors as above.
absl::StatusOr<std::shared_ptr<gpu::Stream>> make_cuda_stream(int32_t device);

}  // namespace pkv
