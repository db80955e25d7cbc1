#include "kernels/cuda/sim/matrix_words.h"

#include <cstring>

#include "kernels/quant.h"

namespace pkv::sim {
namespace {

uint64_t both(uint32_t low, uint32_t high) { return low | static_cast<uint64_t>(high) << 32; }

// 16-bit element `index` of four.
uint16_t element(uint64_t bits, int32_t index) { return static_cast<uint16_t>(bits >> 16 * index); }

template <typename ToFloat>
void multiply(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, const ToFloat& to_float) {
  const WarpValues upper = warp_exchange(~0u, both(a[0], a[2]), Place::here());  // rows 0 .. 7: k 2t, 2t + 1 and + 8
  const WarpValues lower = warp_exchange(~0u, both(a[1], a[3]), Place::here());
  const WarpValues right = warp_exchange(~0u, both(b0, b1), Place::here());
  const int32_t g = this_lane() / 4, t = this_lane() % 4;
  // What four lanes hold of a row or column, k ascending.
  const auto numbers = [&](const WarpValues& values, int32_t row, float(&to)[16]) {
    for (int32_t k = 0; k < 16; ++k) {
      to[k] = to_float(element(values.bits[4 * row + k % 8 / 2], k % 2 + k / 8 * 2));
    }
  };
  float rows[2][16], columns[2][16];
  numbers(upper, g, rows[0]);
  numbers(lower, g, rows[1]);
  numbers(right, 2 * t, columns[0]);
  numbers(right, 2 * t + 1, columns[1]);
  for (int32_t i = 0; i < 4; ++i) {
    double sum = 0;  // of exact products
    for (int32_t k = 0; k < 16; ++k)
      sum += static_cast<double>(rows[i / 2][k]) * static_cast<double>(columns[i % 2][k]);
    c[i] = static_cast<float>(c[i] + sum);
  }
}

// Of four matrices whose rows the lanes bring: register m gets elements pick(0) and pick(1) of matrix m.
struct MatrixElement {
  int32_t row, column;
};
template <typename Pick>
void load(uint32_t (&registers)[4], const void* row, const Pick& pick) {
  require(reinterpret_cast<uintptr_t>(row) % 16 == 0, "a matrix row that is not 16-aligned", Place::here());
  const WarpValues rows = warp_exchange(~0u, reinterpret_cast<uintptr_t>(row), Place::here());
  for (int32_t m = 0; m < 4; ++m) {
    uint32_t banks = 0;  // of 16 bytes
    for (int32_t i = 0; i < 8; ++i) banks |= 1u << rows.bits[8 * m + i] / 16 % 8;
    require(banks == 0xff, "rows of a matrix share banks", Place::here());
    uint16_t pair[2];
    for (int32_t i = 0; i < 2; ++i) {
      const MatrixElement at = pick(i);
      const auto* from = reinterpret_cast<const std::byte*>(static_cast<uintptr_t>(rows.bits[8 * m + at.row]));
      std::memcpy(&pair[i], from + 2 * at.column, sizeof(uint16_t));
    }
    registers[m] = pair[0] | static_cast<uint32_t>(pair[1]) << 16;
  }
}

}  // namespace

void mma_f16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) { multiply(c, a, b0, b1, half_to_float); }

void mma_bf16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  multiply(c, a, b0, b1, bfloat16_to_float);
}

uint16_t float_to_bf16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  if (value != value) return static_cast<uint16_t>(bits >> 16 | 0x40u);  // quiet NaN
  return static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

void load_matrices(uint32_t (&registers)[4], const void* row) {
  const int32_t g = this_lane() / 4, t = this_lane() % 4;
  load(registers, row, [=](int32_t i) { return MatrixElement{g, 2 * t + i}; });
}

void load_transposed(uint32_t (&registers)[4], const void* row) {
  const int32_t g = this_lane() / 4, t = this_lane() % 4;
  load(registers, row, [=](int32_t i) { return MatrixElement{2 * t + i, g}; });
}

uint32_t transposed(uint32_t elements) {
  const WarpValues all = warp_exchange(~0u, elements, Place::here());
  const int32_t g = this_lane() / 4, t = this_lane() % 4;
  // Row g of the transpose is column g: its elements lie in rows 2t and 2t + 1, with the lanes that have column g.
  const uint16_t low = element(all.bits[4 * (2 * t) + g / 2], g % 2);
  const uint16_t high = element(all.bits[4 * (2 * t + 1) + g / 2], g % 2);
  return low | static_cast<uint32_t>(high) << 16;
}

}  // namespace pkv::sim
