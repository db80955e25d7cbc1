// The GPU backend on a simulated device.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "kernels/cuda/sim/block.h"
#include "kernels/cuda/sim/sim_stream.h"

namespace pkv::sim {

struct SimBackend {
  std::unique_ptr<Backend> backend;
  std::shared_ptr<SimStream> stream;  // its device
};

// `exact`: with products of our own kernels, otherwise with those of the device. `graphs`: replay() remembers.
absl::StatusOr<SimBackend> make_sim_backend(const Options& options = {}, bool exact = true, bool graphs = true);

}  // namespace pkv::sim
