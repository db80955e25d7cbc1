#include "kernels/cuda/gpu.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/matrix.cuh"
#include "tests/cuda/matrix_kernels.h"

namespace pkv::test {
namespace {

using gpu::kWarp;

__device__ uint32_t pair(uint16_t low, uint16_t high) { return low | static_cast<uint32_t>(high) << 16; }
__device__ void put(uint32_t halves, uint16_t* to) {
  to[0] = static_cast<uint16_t>(halves & 0xffffu);
  to[1] = static_cast<uint16_t>(halves >> 16);
}

__global__ void multiply_kernel(const uint16_t* a, const uint16_t* b, float* c) {
  const auto lane = static_cast<int32_t>(threadIdx.x);
  const int32_t g = lane / 4, t = lane % 4;
  uint32_t left[4], right[2];
  for (int32_t i = 0; i < 4; ++i) {
    const uint16_t* row = a + (g + i % 2 * 8) * 16 + 2 * t + i / 2 * 8;
    left[i] = pair(row[0], row[1]);
  }
  for (int32_t i = 0; i < 2; ++i) {
    const int32_t k = 2 * t + i * 8;
    right[i] = pair(b[k * 8 + g], b[(k + 1) * 8 + g]);
  }
  float sums[4];
  for (int32_t i = 0; i < 4; ++i) sums[i] = c[(g + i / 2 * 8) * 8 + 2 * t + i % 2];
  gpu::mma_f16(sums, left, right[0], right[1]);
  for (int32_t i = 0; i < 4; ++i) c[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = sums[i];
}

__global__ void load_kernel(const uint16_t* from, int32_t pitch, uint16_t* to) {
  PKV_DYNAMIC_SHARED(uint16_t, rows);
  const auto lane = static_cast<int32_t>(threadIdx.x);
  for (int32_t i = 0; i < 8; ++i) rows[lane * pitch + i] = from[lane * 8 + i];
  __syncthreads();
  uint32_t registers[4];
  gpu::load_transposed(registers, rows + lane * pitch);
  for (int32_t m = 0; m < 4; ++m) {
    put(registers[m], to + m * 64 + lane / 4 * 8 + lane % 4 * 2);
  }
}

__global__ void move_kernel(const uint16_t* from, uint16_t* to) {
  const auto lane = static_cast<int32_t>(threadIdx.x);
  const int32_t at = lane / 4 * 8 + lane % 4 * 2;
  const uint32_t result = gpu::transposed(pair(from[at], from[at + 1]));
  put(result, to + at);
}

__global__ void codes_kernel(const uint32_t* registers, uint16_t* bytes, uint16_t* nibbles) {
  const auto lane = static_cast<int32_t>(threadIdx.x);
  uint32_t even, odd;
  gpu::halves_of_bytes(registers[lane], even, odd);
  put(even, bytes + 4 * lane);
  put(odd, bytes + 4 * lane + 2);
  for (int32_t i = 0; i < 4; ++i) put(gpu::halves_of_nibbles(registers[lane], i), nibbles + 8 * lane + 2 * i);
}

__global__ void copy_kernel(const float* from, bool there, bool waits, float* to) {
  PKV_SHARED(float4, room, 3 * kWarp);
  const auto lane = static_cast<int32_t>(threadIdx.x), other = kWarp - 1 - lane;
  for (int32_t group = 0; group < 3; ++group) {
    gpu::copy_16(room + group * kWarp + lane, from + (group * kWarp + lane) * 4, there);
    gpu::end_copy_group();
  }
  const auto read = [&](int32_t group) {
    __syncthreads();
    const float4 got = room[group * kWarp + other];
    float* at = to + (group * kWarp + other) * 4;
    at[0] = got.x, at[1] = got.y, at[2] = got.z, at[3] = got.w;
  };
  if (waits) gpu::wait_for_copies<2>();
  read(0);
  if (waits) gpu::wait_for_copies<0>();
  read(1);
  read(2);
}

}  // namespace

void multiply_halves(gpu::Stream& stream, const uint16_t* a, const uint16_t* b, float* c) {
  gpu::launch(stream, "multiply", {.blocks = 1, .threads = kWarp}, multiply_kernel, a, b, c);
}

void transpose_loading(gpu::Stream& stream, const uint16_t* from, int32_t pitch, uint16_t* to) {
  const size_t bytes = sizeof(uint16_t) * static_cast<size_t>(kWarp * pitch);
  gpu::launch(stream, "load", {.blocks = 1, .threads = kWarp, .shared_bytes = bytes}, load_kernel, from, pitch, to);
}

void transpose_moving(gpu::Stream& stream, const uint16_t* from, uint16_t* to) {
  gpu::launch(stream, "move", {.blocks = 1, .threads = kWarp}, move_kernel, from, to);
}

void halves_of_codes(gpu::Stream& stream, const uint32_t* registers, uint16_t* bytes, uint16_t* nibbles) {
  gpu::launch(stream, "codes", {.blocks = 1, .threads = kWarp}, codes_kernel, registers, bytes, nibbles);
}

void copy_groups(gpu::Stream& stream, const float* from, bool there, bool waits, float* to) {
  gpu::launch(stream, "copy", {.blocks = 1, .threads = kWarp}, copy_kernel, from, there, waits, to);
}

}  // namespace pkv::test
