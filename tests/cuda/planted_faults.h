// Kernels with one fault each, and sound ones beside them.
#pragma once

#include <cstdint>

#include "kernels/cuda/stream.h"

namespace pkv::test {

constexpr int32_t kFaultThreads = 96;  // of their one block

enum class Fault : uint8_t {
  kNone,
  kRemovedBarrier,     // between writing a shared array and reading it
  kUnwrittenShared,    // the array is not written at all
  kSharedOutOfBounds,  // one element too many
  kGlobalOutOfBounds,  // one element too many of `out`
  kDifferentBarriers,  // half of the block waits at another one
  kMissingLane,        // a lane does not take part in a shuffle whose mask names it
};

// out[i] = in[kFaultThreads - 1 - i], through shared memory.
void reverse(gpu::Stream& stream, Fault fault, const float* in, float* out);
// out[0] = the sum of in[0 .. kFaultThreads), by warp and block reductions.
void sum(gpu::Stream& stream, const float* in, float* out);
// Only asks for so much dynamic shared memory.
void use_shared(gpu::Stream& stream, int64_t bytes, float* out);
// out[i] = the ballot of odd lanes, the value of the lane above, and so on: what warps can do, each in a row of 32.
void warp_words(gpu::Stream& stream, int32_t* out);

}  // namespace pkv::test
