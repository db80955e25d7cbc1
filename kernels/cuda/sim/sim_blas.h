// Matrix products of the simulated device.
#pragma once

#include <memory>

#include "kernels/cuda/blas.h"
#include "kernels/cuda/sim/sim_stream.h"

namespace pkv::sim {

// `stream` must outlive it. Products and sums in float32, in one order.
std::unique_ptr<gpu::Blas> make_sim_blas(SimStream& stream);

}  // namespace pkv::sim
