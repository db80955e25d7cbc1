// 8-bit dot products in portable C++.
#include "kernels/cpu/linear/int8_panels.h"

namespace pkv {
namespace {

// The 16 outputs' products of a group. `code(quad, i)`: byte i of the [16][4] codes of four inputs.
template <int kRows, typename Code>
void dot_group(int32_t quads, const Code& code, const GroupRows& rows, I::Type (&dots)[kRows][kParts]) {
  for (int r = 0; r < kRows; ++r) {
    int32_t sums[kPanelOutputs];
    for (int32_t& sum : sums) sum = rows.corrections[r * rows.correction_stride];
    for (int32_t quad = 0; quad < quads; ++quad) {
      const int8_t* a = rows.codes + r * rows.stride + 4 * quad;
      for (int32_t o = 0; o < kPanelOutputs; ++o) {
        for (int32_t t = 0; t < 4; ++t) sums[o] += code(quad, 4 * o + t) * a[t];
      }
    }
    for (int p = 0; p < kParts; ++p) dots[r][p] = I::load(sums + p * V::kWidth);
  }
}

struct PlainDots {
  template <int kRows>
  static void nibbles(const uint8_t* codes, const GroupRows& rows, I::Type (&dots)[kRows][kParts]) {
    const auto code = [codes](int32_t quad, int32_t i) {
      return (codes[quad / 2 * 64 + i] >> (quad % 2 == 0 ? 0 : 4)) & 15;
    };
    dot_group(8, code, rows, dots);
  }
  template <int kRows>
  static void bytes(const uint8_t* codes, const PackedView& weight, const GroupRows& rows,
                    I::Type (&dots)[kRows][kParts]) {
    const auto code = [codes](int32_t quad, int32_t i) { return codes[quad * 64 + i]; };
    dot_group(weight.group / 4, code, rows, dots);
  }
};

}  // namespace

template <>
constinit const Int8Kernels PathTable<Int8Kernels, Isa::kScalar>::kernels = {.quantize_row = quantize_row,
                                                                             .multiply = multiply_panels<PlainDots, 1>};

}  // namespace pkv
