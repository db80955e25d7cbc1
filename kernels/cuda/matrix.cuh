// What tensor cores and their loads need of PTX, each piece with a C++ body for the simulator (sim/matrix_words.h).
// Every function here is one of a whole warp, but for the copies, which are each thread's own.
//
// Fragments of m16n8k16, with g = lane / 4 and t = lane % 4; two 16-bit elements a register, the lower one first:
//   A [16 rows][16 k]   register 0: row g, k 2t, 2t + 1; 1: row g + 8; 2: row g, k + 8; 3: row g + 8, k + 8
//   B [16 k][8 columns] register 0: column g, k 2t, 2t + 1; 1: k + 8
//   C [16 rows][8 columns], float32: 0, 1: row g, columns 2t, 2t + 1; 2, 3: row g + 8
#pragma once

#include <cstdint>

#include "kernels/cuda/gpu.h"
#ifndef __CUDACC__
#include "kernels/cuda/sim/matrix_words.h"
#endif

namespace pkv::gpu {

// c += a b, of f16.
__device__ inline void mma_f16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
#ifdef __CUDACC__
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
  pkv::sim::mma_f16(c, a, b0, b1);
#endif
}

// The same of bfloat16.
__device__ inline void mma_bf16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
#ifdef __CUDACC__
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
  pkv::sim::mma_bf16(c, a, b0, b1);
#endif
}

#ifdef __CUDACC__
__device__ inline uint32_t shared_address(const void* at) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(at));
}
#endif

// Four 8 x 8 matrices of 16-bit elements from shared memory: lane i brings the address of row i % 8 of matrix i / 8, 16
// bytes. The rows of a matrix lie in different banks, which the simulator insists on. Register m becomes elements (row
// 2t, column g) and (row 2t + 1, column g) of matrix m: of its transpose, that is, what row g has at 2t and 2t + 1.
__device__ inline void load_transposed(uint32_t (&registers)[4], const void* row) {
#ifdef __CUDACC__
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(registers[0]), "=r"(registers[1]), "=r"(registers[2]), "=r"(registers[3])
               : "r"(shared_address(row))
               : "memory");
#else
  pkv::sim::load_transposed(registers, row);
#endif
}

// As they are: register m becomes elements (row g, columns 2t and 2t + 1) of matrix m.
__device__ inline void load_matrices(uint32_t (&registers)[4], const void* row) {
#ifdef __CUDACC__
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(registers[0]), "=r"(registers[1]), "=r"(registers[2]), "=r"(registers[3])
               : "r"(shared_address(row))
               : "memory");
#else
  pkv::sim::load_matrices(registers, row);
#endif
}

// The transpose of an 8 x 8 matrix of which a lane has row g, columns 2t and 2t + 1.
__device__ inline uint32_t transposed(uint32_t elements) {
#ifdef __CUDACC__
  uint32_t result;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(result) : "r"(elements));
  return result;
#else
  return pkv::sim::transposed(elements);
#endif
}

// Two floats as 16-bit ones, rounded to nearest.
__device__ inline uint32_t pack_halves(float low, float high) {
  return float_to_half(low) | static_cast<uint32_t>(float_to_half(high)) << 16;
}

// Of four int8 the first and the third as f16, and the second and the fourth.
__device__ inline void halves_of_bytes(uint32_t bytes, uint32_t& even, uint32_t& odd) {
#ifdef __CUDACC__
  // 0x6400 | b is 1024 + b: an offset of 128 makes b unsigned and is taken off again.
  const uint32_t shifted = bytes ^ 0x80808080u;
  asm("sub.f16x2 %0, %1, %2;" : "=r"(even) : "r"(__byte_perm(shifted, 0x64646464u, 0x4240)), "r"(0x64806480u));
  asm("sub.f16x2 %0, %1, %2;" : "=r"(odd) : "r"(__byte_perm(shifted, 0x64646464u, 0x4341)), "r"(0x64806480u));
#else
  const auto byte = [bytes](int32_t i) { return static_cast<float>(static_cast<int8_t>(bytes >> 8 * i)); };
  even = pack_halves(byte(0), byte(2));
  odd = pack_halves(byte(1), byte(3));
#endif
}

// Number `index` of the four of 4 bits, -8 to 7, in each half of a register, as f16.
__device__ inline uint32_t halves_of_nibbles(uint32_t nibbles, int32_t index) {
#ifdef __CUDACC__
  const uint32_t shifted = ((nibbles >> 4 * index) & 0x000f000fu) ^ 0x64086408u;  // 1024 + 8 + the number
  uint32_t halves;
  asm("sub.f16x2 %0, %1, %2;" : "=r"(halves) : "r"(shifted), "r"(0x64086408u));
  return halves;
#else
  const auto number = [=](int32_t half) {
    return static_cast<float>(static_cast<int32_t>((nibbles >> (16 * half + 4 * index) & 15u) ^ 8u) - 8);
  };
  return pack_halves(number(0), number(1));
#endif
}

// Two floats as bfloat16, rounded to nearest even.
__device__ inline uint32_t pack_bf16(float low, float high) {
#ifdef __CUDACC__
  uint32_t packed;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
#else
  return float_to_bfloat16(low) | static_cast<uint32_t>(float_to_bfloat16(high)) << 16;
#endif
}

// ---- copies of 16 or 8 bytes to shared memory that go on while the thread does other things. Copies belong to the
// thread's next group; what they bring may be read after a wait for that group, by other threads after a barrier
// besides.

// Zeros where there is nothing to copy; `from` is then not read.
__device__ inline void copy_16(void* shared, const void* from, bool there) {
#ifdef __CUDACC__
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(from),
               "r"(there ? 16 : 0)
               : "memory");
#else
  pkv::sim::start_copy(shared, there ? from : nullptr, 16);
#endif
}
// The same of 8 bytes.
__device__ inline void copy_8(void* shared, const void* from, bool there) {
#ifdef __CUDACC__
  asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;" ::"r"(shared_address(shared)), "l"(from),
               "r"(there ? 8 : 0)
               : "memory");
#else
  pkv::sim::start_copy(shared, there ? from : nullptr, 8);
#endif
}
__device__ inline void end_copy_group() {
#ifdef __CUDACC__
  asm volatile("cp.async.commit_group;" ::: "memory");
#else
  pkv::sim::end_copy_group();
#endif
}
// Until at most kGroups groups of the thread are still on their way.
template <int32_t kGroups>
__device__ void wait_for_copies() {
#ifdef __CUDACC__
  asm volatile("cp.async.wait_group %0;" ::"n"(kGroups) : "memory");
#else
  pkv::sim::wait_for_copies(kGroups);
#endif
}

}  // namespace pkv::gpu
