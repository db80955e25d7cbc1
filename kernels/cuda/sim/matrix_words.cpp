#include "kernels/cuda/sim/matrix_words.h"

#include <cstring>

#include "kernels/quant.h"

namespace pkv::sim {
namespace {

// 16-bit element `index` of four.
uint16_t element(uint64_t bits, int32_t index) { return static_cast<uint16_t>(bits >> 16 * index); }

// What a lane brings to a product. It lies on the lane's own stack, where the lane waits for the others.
struct Fragments {
  const uint32_t* a;
  uint32_t b[2];
  float* c;
  bool done = false;
};

// The product for all lanes of a warp.
template <typename ToFloat>
void multiply_all(const WarpValues& lanes, const ToFloat& to_float) {
  const auto fragments = [&lanes](int32_t lane) -> Fragments& {
    return *reinterpret_cast<Fragments*>(static_cast<uintptr_t>(lanes.bits[lane]));
  };
  float a[16][16], b[8][16];
  for (int32_t lane = 0; lane < 32; ++lane) {
    const Fragments& own = fragments(lane);
    const int32_t g = lane / 4, t = lane % 4;
    for (int32_t half = 0; half < 2; ++half) {  // of a register, and of the columns
      for (int32_t part = 0; part < 2; ++part) {
        const int32_t k = 2 * t + half + 8 * part;
        a[g][k] = to_float(element(own.a[2 * part], half));
        a[g + 8][k] = to_float(element(own.a[2 * part + 1], half));
        b[g][k] = to_float(element(own.b[part], half));
      }
    }
  }
  for (int32_t lane = 0; lane < 32; ++lane) {
    Fragments& own = fragments(lane);
    for (int32_t i = 0; i < 4; ++i) {
      const float *row = a[lane / 4 + i / 2 * 8], *column = b[lane % 4 * 2 + i % 2];
      double sum = 0;  // of exact products
      for (int32_t k = 0; k < 16; ++k) sum += static_cast<double>(row[k]) * static_cast<double>(column[k]);
      own.c[i] = static_cast<float>(own.c[i] + sum);
    }
    own.done = true;
  }
}

// Whoever comes out of the exchange first computes for all.
template <typename ToFloat>
void multiply(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, const ToFloat& to_float) {
  Fragments own{.a = a, .b = {b0, b1}, .c = c};
  const WarpValues& lanes = warp_exchange(~0u, reinterpret_cast<uintptr_t>(&own), Place::here());
  if (!own.done) multiply_all(lanes, to_float);
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
