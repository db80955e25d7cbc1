// Observation passes on tensor cores, for lanes of f16 entries.
#pragma once

#include "kernels/cuda/stream.h"
#include "kernels/operation_args.h"

namespace pkv::gpu {

// row_lse() and column_mass() of kernels/backend.h for query heads whose lanes have f16 entries. False: of no head size
// or page size that they take.
bool row_lse_of_halves(Stream& stream, const ObserveArgs& args, const TensorView& lse);
bool column_mass_of_halves(Stream& stream, const ObserveArgs& args, const TensorView& lse, const TensorView& sums,
                           const TensorView& squares);

}  // namespace pkv::gpu
