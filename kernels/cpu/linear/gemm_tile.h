// A tile of unpacked weights times rows of activations, and the codes it is unpacked from. For sources that are
// compiled once per instruction set (vec.h).
#pragma once

#include <cstdint>

#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/linear/panel_scales.h"

namespace pkv {
namespace {

// Panels side by side: with six rows (two in four-element vectors) the sums fill the registers.
#if defined(PKV_ISA_AVX512)
constexpr int32_t kTilePanels = 4;
#else
constexpr int32_t kTilePanels = 1;
#endif
constexpr int32_t kTileOutputs = kTilePanels * kPanelOutputs;
constexpr int32_t kTileVectors = kTileOutputs / V::kWidth;

// The sums of a block of rows: zeros, or where the chunk before left them.
template <int kRows, int kVectors>
inline void begin_sums(const GemmTile& tile, int32_t row, V::Type (&sums)[kRows][kVectors]) {
  constexpr int64_t kStride = kVectors * V::kWidth;
  const float* partial = tile.partial + row * kStride;
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      sums[r][v] = tile.first ? V::broadcast(0.0f) : V::load(partial + r * kStride + v * V::kWidth);
    }
  }
}

template <int kRows, int kVectors>
inline void finish_sums(const GemmTile& tile, int32_t row, const V::Type (&sums)[kRows][kVectors]) {
  constexpr int64_t kStride = kVectors * V::kWidth;
  float* partial = tile.partial + row * kStride;
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      if (tile.last) {
        store_outputs(sums[r][v], tile.cols - v * V::kWidth, tile.accumulate,
                      tile.out + (row + r) * tile.out_stride + v * V::kWidth);
      } else {
        V::store(partial + r * kStride + v * V::kWidth, sums[r][v]);
      }
    }
  }
}

// Product says what an element is and how elements are multiplied:
//   kInputs          inputs in an element of a row and of the tile
//   A, broadcast(a)  an element of a row, and that in all places
//   B, Weights, load(b)  an element of the tile, and a vector of them
//   multiply_add(x, w, sum)
template <typename Product, int kRows>
void multiply_rows(const GemmTile& tile, int32_t row) {
  const int64_t stride = tile.a_stride / Product::kInputs;
  const int64_t depth = (tile.depth + Product::kInputs - 1) / Product::kInputs;
  const auto* a = static_cast<const typename Product::A*>(tile.a) + row * stride;
  const auto* b = static_cast<const typename Product::B*>(tile.b);
  V::Type sums[kRows][kTileVectors];
  begin_sums(tile, row, sums);
  for (int64_t k = 0; k < depth; ++k, b += kTileOutputs) {
    typename Product::Weights w[kTileVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kTileVectors; ++v) w[v] = Product::load(b + v * V::kWidth);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const auto x = Product::broadcast(a[r * stride + k]);
#pragma GCC unroll 4
      for (int v = 0; v < kTileVectors; ++v) sums[r][v] = Product::multiply_add(x, w[v], sums[r][v]);
    }
  }
  finish_sums(tile, row, sums);
}

template <typename Product>
void multiply_tile(const GemmTile& tile) {
  const auto block = [&]<int kRows>(int32_t row) { multiply_rows<Product, kRows>(tile, row); };
  if constexpr (kIsa == Isa::kScalar) {
    in_row_blocks<2, 1>(tile.rows, block);
  } else {
    in_row_blocks<6, 5, 4, 3, 2, 1>(tile.rows, block);
  }
}

// A vector's outputs of input k of a panel of float weights.
inline V::Type load_weights(CodeKind kind, const uint8_t* panel, int64_t k, int32_t part) {
  const int64_t at = k * kPanelOutputs + part * V::kWidth;
  if (kind == CodeKind::kF32) return V::load(reinterpret_cast<const float*>(panel) + at);
  const auto* bits = reinterpret_cast<const uint16_t*>(panel) + at;
  return kind == CodeKind::kF16 ? V::load(bits) : V::load(reinterpret_cast<const Bfloat16*>(bits));
}

// Decodes inputs [k0, k1) of a panel of quantised weights, four at a time: visit(part, four vectors of weights of the
// part's outputs, quad), quads counted from k0.
template <typename Visit>
void for_each_quad(const PackedView& weight, int64_t panel, int64_t k0, int64_t k1, const Visit& visit) {
  constexpr int64_t kQuadBytes = 4 * kPanelOutputs;  // of byte codes, or of the nibbles of two quads
  const uint8_t* codes = weight.codes + panel * weight.panel_code_bytes;
  const uint8_t* scales = weight.scales + panel * weight.panel_scale_bytes;
  const bool nibbles = weight.code_kind == CodeKind::kNibble;
  const I::Type byte_mask = I::broadcast(255), nibble_mask = I::broadcast(0x0f0f0f0f);
  // Codes of four inputs, one in each byte of an output's element.
  const auto decode = [&](I::Type quad, const GroupScales& s, int p, int64_t index) {
    const V::Type values[4] = {V::fma(I::to_float(quad & byte_mask), s.scale[p], s.min[p]),
                               V::fma(I::to_float(I::shift_right<8>(quad) & byte_mask), s.scale[p], s.min[p]),
                               V::fma(I::to_float(I::shift_right<16>(quad) & byte_mask), s.scale[p], s.min[p]),
                               V::fma(I::to_float(I::shift_right<24>(quad)), s.scale[p], s.min[p])};
    visit(p, values, index);
  };
  int64_t index = 0;
  for (int64_t k = k0; k < k1; k += weight.group) {
    const GroupScales s = load_scales(weight, scales, k / weight.group);
    if (!nibbles) {
      for (int64_t q = k / 4; q < (k + weight.group) / 4; ++q, ++index) {
#pragma GCC unroll 4
        for (int p = 0; p < kParts; ++p) decode(I::load(codes + q * kQuadBytes + p * 4 * V::kWidth), s, p, index);
      }
      continue;
    }
    for (int64_t q = k / 8; q < (k + weight.group) / 8; ++q, index += 2) {
#pragma GCC unroll 4
      for (int p = 0; p < kParts; ++p) {
        const I::Type packed = I::load(codes + q * kQuadBytes + p * 4 * V::kWidth);
        decode(packed & nibble_mask, s, p, index);
        decode(I::shift_right<4>(packed) & nibble_mask, s, p, index + 1);
      }
    }
  }
}

}  // namespace
}  // namespace pkv
