#include "kernels/cuda/sim/matrix_words.h"

#include <cstring>

#include "kernels/quant.h"

namespace pkv::sim {
namespace {

uint64_t both(uint32_t low, uint32_t high) { return low | static_cast<uint64_t>(high) << 32; }

// 16-bit element `index` of four.
uint16_t element(uint64_t bits, int32_t index) { return static_cast<uint16_t>(bits >> 16 * index); }

}  // namespace

void mma_f16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  const WarpValues upper = warp_exchange(~0u, both(a[0], a[2]), Place::here());  // rows 0 .. 7: k 2t, 2t + 1 and + 8
  const WarpValues lower = warp_exchange(~0u, both(a[1], a[3]), Place::here());
  const WarpValues right = warp_exchange(~0u, both(b0, b1), Place::here());
  const int32_t g = this_lane() / 4, t = this_lane() % 4;
  for (int32_t i = 0; i < 4; ++i) {
    const WarpValues& left = i < 2 ? upper : lower;
    const int32_t column = 2 * t + i % 2;
    double sum = 0;  // of exact products
    for (int32_t k = 0; k < 16; ++k) {
      const int32_t from = k % 8 / 2, which = k % 2 + k / 8 * 2;
      sum += static_cast<double>(half_to_float(element(left.bits[4 * g + from], which))) *
             static_cast<double>(half_to_float(element(right.bits[4 * column + from], which)));
    }
    c[i] = static_cast<float>(c[i] + sum);
  }
}

void load_transposed(uint32_t (&registers)[4], const void* row) {
  require(reinterpret_cast<uintptr_t>(row) % 16 == 0, "a matrix row that is not 16-aligned", Place::here());
  uint64_t address = reinterpret_cast<uintptr_t>(row);
  const WarpValues rows = warp_exchange(~0u, address, Place::here());
  const int32_t g = this_lane() / 4, t = this_lane() % 4;
  for (int32_t m = 0; m < 4; ++m) {
    uint32_t banks = 0;  // of 16 bytes
    for (int32_t i = 0; i < 8; ++i) banks |= 1u << rows.bits[8 * m + i] / 16 % 8;
    require(banks == 0xff, "rows of a matrix share banks", Place::here());
    uint16_t pair[2];
    for (int32_t i = 0; i < 2; ++i) {
      const auto* from = reinterpret_cast<const std::byte*>(static_cast<uintptr_t>(rows.bits[8 * m + 2 * t + i]));
      std::memcpy(&pair[i], from + 2 * g, sizeof(uint16_t));
    }
    registers[m] = pair[0] | static_cast<uint32_t>(pair[1]) << 16;
  }
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
