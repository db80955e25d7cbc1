// Kernels that use one wrapper of matrix.cuh each, for matrix_test.
#pragma once

#include <cstdint>

#include "kernels/cuda/stream.h"

namespace pkv::test {

// c [16][8] += a [16][16] b [16][8], of 16-bit floats.
void multiply_halves(gpu::Stream& stream, const uint16_t* a, const uint16_t* b, float* c);
// to = the transposes of four matrices [4][8][8] of 16-bit elements, by load_transposed(); rows lie `pitch` elements
// apart in shared memory.
void transpose_loading(gpu::Stream& stream, const uint16_t* from, int32_t pitch, uint16_t* to);
// to = the transpose of a matrix [8][8], by transposed().
void transpose_moving(gpu::Stream& stream, const uint16_t* from, uint16_t* to);
// Of registers [32]: bytes [32][4] are the f16 of the first, third, second and fourth int8, nibbles [32][4][2] those of
// number 0 to 3 of both halves.
void halves_of_codes(gpu::Stream& stream, const uint32_t* registers, uint16_t* bytes, uint16_t* nibbles);
// to = from [3][32][4], copied in three groups, or zeros where `there` is false; `waits`: the groups are waited for.
void copy_groups(gpu::Stream& stream, const float* from, bool there, bool waits, float* to);

}  // namespace pkv::test
