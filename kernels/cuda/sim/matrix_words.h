// The C++ bodies of matrix.cuh: what a warp's lanes hold is exchanged, and each lane computes its own part.
#pragma once

#include <cstdint>

#include "kernels/cuda/sim/block.h"

namespace pkv::sim {

void mma_f16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);
void mma_bf16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);
void load_matrices(uint32_t (&registers)[4], const void* row);
void load_transposed(uint32_t (&registers)[4], const void* row);
uint32_t transposed(uint32_t elements);

}  // namespace pkv::sim
