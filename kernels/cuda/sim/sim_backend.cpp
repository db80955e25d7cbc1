#include "kernels/cuda/sim/sim_backend.h"

#include <utility>

#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/sim/sim_blas.h"
#include "kernels/status_macros.h"

namespace pkv::sim {

absl::StatusOr<SimBackend> make_sim_backend(const Options& options, bool exact, bool graphs) {
  SimBackend made{.stream = std::make_shared<SimStream>(options)};
  PKV_ASSIGN_OR_RETURN(made.backend,
                       CudaBackend::create(made.stream, exact ? nullptr : make_sim_blas(*made.stream), graphs));
  return made;
}

}  // namespace pkv::sim
