// Matrix products of prompts in 8 bits with AVX512_VNNI. What limits them are the two units that multiply, so that all
// that is no dot product of codes has to be cheap: groups are scaled two at a time in 16 bits and summed as integers.
#include <immintrin.h>

#include "kernels/cpu/linear/gemm_tile.h"
#include "kernels/cpu/linear/paired_panels.h"
#include "kernels/cpu/linear/paired_rows.h"

namespace pkv {
namespace {

typedef int32_t __attribute__((may_alias)) Four;   // bytes
typedef int64_t __attribute__((may_alias)) Eight;  // bytes

inline I::Type broadcast_four(const void* from) { return _mm512_set1_epi32(*static_cast<const Four*>(from)); }
inline I::Type broadcast_eight(const void* from) { return _mm512_set1_epi64(*static_cast<const Eight*>(from)); }

// Written in assembly because g++ 12 spills the accumulators of the intrinsics.
// sums += four products of unsigned bytes with signed ones.
inline I::Type add_dots(I::Type sums, I::Type codes, I::Type x) {
  __asm__("vpdpbusd %2, %1, %0" : "+v"(sums) : "v"(codes), "v"(x));
  return sums;
}
// sums += two products of int16.
inline I::Type add_pairs(I::Type sums, I::Type a, I::Type b) {
  __asm__("vpdpwssd %2, %1, %0" : "+v"(sums) : "v"(a), "v"(b));
  return sums;
}

template <int kShift>
I::Type shifted(I::Type dots) {
  return kShift == 0 ? dots : _mm512_srai_epi32(dots, kShift);
}

template <int kGroup, int kShift, bool kHasMin, int kRows>
void multiply_rows(const GemmTile& tile, int32_t row) {
  const auto* panel = static_cast<const Panel<kGroup>*>(tile.b);
  const int64_t pairs = (tile.depth / kGroup + 1) / 2;
  const int64_t stride = tile.a_stride;
  const auto* x = static_cast<const uint8_t*>(tile.a) + row * stride;
  I::Type sums[kRows];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) sums[r] = I::broadcast(0);
  for (const auto *w = panel->pairs, *end = w + pairs; w != end; ++w, x += sizeof(RowPair<kGroup>)) {
    const auto* x_pair = reinterpret_cast<const RowPair<kGroup>*>(x);
    const auto of_row = [&](const auto* first, int r) { return reinterpret_cast<const uint8_t*>(first) + r * stride; };
    I::Type dots[kRows][2];
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) dots[r][0] = dots[r][1] = broadcast_eight(of_row(x_pair->corrections, r));
#pragma GCC unroll 8
    for (int quad = 0; quad < kGroup / 4; ++quad) {
      const I::Type low = I::load(w->codes[quad][0]), high = I::load(w->codes[quad][1]);
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        const I::Type codes = broadcast_eight(of_row(x_pair->codes + 8 * quad, r));
        dots[r][0] = add_dots(dots[r][0], low, codes);
        dots[r][1] = add_dots(dots[r][1], high, codes);
      }
    }
    const I::Type scales = I::load(w->scales), mins = I::load(w->mins);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const I::Type halves = _mm512_packs_epi32(shifted<kShift>(dots[r][0]), shifted<kShift>(dots[r][1]));
      const I::Type scaled = _mm512_mulhrs_epi16(halves, broadcast_four(of_row(x_pair->scales, r)));
      sums[r] = add_pairs(sums[r], scaled, scales);
      if (kHasMin) sums[r] = add_pairs(sums[r], mins, broadcast_four(of_row(x_pair->sums, r)));
    }
  }
  const V::Type units = V::load(panel->units) * V::broadcast(static_cast<float>(1 << kShift));
  V::Type out[kRows][1];
  begin_sums(tile, row, out);
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
    out[r][0] = V::fma(I::to_float(sums[r]), units * V::broadcast(tile.row_scales[row + r]), out[r][0]);
  }
  finish_sums(tile, row, out);
}

template <int kGroup, int kShift, bool kHasMin>
void multiply_panel(const GemmTile& tile) {
  in_row_blocks<7, 4, 2, 1>(tile.rows,
                            [&]<int kRows>(int32_t row) { multiply_rows<kGroup, kShift, kHasMin, kRows>(tile, row); });
}

void multiply(const GemmTile& tile) {
  const PackedView& weight = *tile.weight;
  const bool has_min = weight.zero_point == 0;
  if (weight.group == 16) return multiply_panel<16, 1, false>(tile);  // Q6_K is the only one
  switch (shift_of(weight)) {
    case 0:
      return has_min ? multiply_panel<32, 0, true>(tile) : multiply_panel<32, 0, false>(tile);
    case 1:
      return has_min ? multiply_panel<32, 1, true>(tile) : multiply_panel<32, 1, false>(tile);
    default:
      return multiply_panel<32, 4, false>(tile);
  }
}

constexpr int64_t kTileBytes = kDepth * kPanelOutputs * kWeightBytes;

}  // namespace

template <>
constinit const GemmKernels PathTable<GemmKernels, Isa::kAvx512Vnni>::kernels = {.tile_panels = 1,
                                                                                 .element_bytes = kWeightBytes,
                                                                                 .row_multiple = 7,
                                                                                 .depth_multiple = kStep,
                                                                                 .tile_bytes = kTileBytes,
                                                                                 .few_rows_tile_bytes = kTileBytes,
                                                                                 .unpack = unpack,
                                                                                 .multiply = multiply,
                                                                                 .quantize_row = quantize_row,
                                                                                 .step_bytes = step_bytes};

}  // namespace pkv
