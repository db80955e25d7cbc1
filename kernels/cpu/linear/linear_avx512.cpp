// Float32 matrix products with AVX-512: tiles of 6 rows by 64 outputs, which keep 24 accumulators in registers.
#if defined(__x86_64__)
#include <immintrin.h>

#include "kernels/cpu/kernel_table.h"

namespace pkv {
namespace {

#include "kernels/cpu/linear/linear_avx512.inc"

constexpr int kTilePanels = 4;
constexpr int kTileOutputs = kTilePanels * kP;

// Codes of four inputs, one in each byte of an output's 32-bit lane, to four rows of the tile buffer.
inline void unpack_quad(__m512i codes, const Scales& s, float* to) {
  const __m512i mask = _mm512_set1_epi32(255);
  for (int t = 0; t < 4; ++t) {
    const __m512 values = _mm512_cvtepi32_ps(_mm512_and_si512(codes, mask));
    _mm512_storeu_ps(to + t * kTileOutputs, _mm512_fmadd_ps(values, s.scale, s.min));
    codes = _mm512_srli_epi32(codes, 8);
  }
}

void unpack(const PackedView& weight, int64_t panel, int64_t k0, int64_t k1, void* tile, int32_t slot) {
  auto* to = static_cast<float*>(tile) + slot * kP;
  const uint8_t* codes = weight.codes + panel * weight.panel_code_bytes;
  if (weight.scale_kind == ScaleKind::kNone) {
    const int64_t bytes = weight.code_kind == CodeKind::kF32 ? 4 * kP : 2 * kP;
    for (int64_t k = k0; k < k1; ++k, to += kTileOutputs) {
      // The panel's next chunk: with few rows chunks are too short for the hardware to foresee where it lies.
      _mm_prefetch(reinterpret_cast<const char*>(codes + (k + k1 - k0) * bytes), _MM_HINT_T0);
      _mm512_storeu_ps(to, load_floats(weight.code_kind, codes, k));
    }
    return;
  }
  const uint8_t* scales = weight.scales + panel * weight.panel_scale_bytes;
  const __m512i nibble = _mm512_set1_epi8(15);
  for (int64_t k = k0; k < k1; k += weight.group) {
    const Scales s = load_scales(weight, scales, k / weight.group);
    if (weight.code_kind == CodeKind::kByte) {
      for (int64_t q = k / 4; q < (k + weight.group) / 4; ++q, to += 4 * kTileOutputs) {
        unpack_quad(_mm512_loadu_si512(codes + q * 64), s, to);
      }
      continue;
    }
    for (int64_t q = k / 8; q < (k + weight.group) / 8; ++q, to += 8 * kTileOutputs) {
      const __m512i packed = _mm512_loadu_si512(codes + q * 64);
      unpack_quad(_mm512_and_si512(packed, nibble), s, to);
      unpack_quad(_mm512_and_si512(_mm512_srli_epi16(packed, 4), nibble), s, to + 4 * kTileOutputs);
    }
  }
}

template <int kRows>
void multiply_rows(const GemmTile& tile, int32_t row) {
  const int64_t stride = tile.a_stride;
  const float* a = static_cast<const float*>(tile.a) + row * stride;
  const auto* b = static_cast<const float*>(tile.b);
  float* partial = tile.partial + static_cast<int64_t>(row) * kTileOutputs;
  __m512 sums[kRows][kTilePanels];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int p = 0; p < kTilePanels; ++p) {
      sums[r][p] = tile.first ? _mm512_setzero_ps() : _mm512_loadu_ps(partial + r * kTileOutputs + p * kP);
    }
  }
  for (int64_t k = 0; k < tile.depth; ++k, b += kTileOutputs) {
    __m512 w[kTilePanels];
#pragma GCC unroll 4
    for (int p = 0; p < kTilePanels; ++p) w[p] = _mm512_loadu_ps(b + p * kP);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const __m512 x = _mm512_set1_ps(a[r * stride + k]);
#pragma GCC unroll 4
      for (int p = 0; p < kTilePanels; ++p) sums[r][p] = _mm512_fmadd_ps(x, w[p], sums[r][p]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int p = 0; p < kTilePanels; ++p) {
      if (tile.last) {
        store_outputs(sums[r][p], tile.cols - p * kP, tile.accumulate, tile.out + (row + r) * tile.out_stride + p * kP);
      } else {
        _mm512_storeu_ps(partial + r * kTileOutputs + p * kP, sums[r][p]);
      }
    }
  }
}

void multiply_f32(const GemmTile& tile) {
  int32_t row = 0;
  for (; row + 6 <= tile.rows; row += 6) multiply_rows<6>(tile, row);
  switch (tile.rows - row) {
    case 5:
      return multiply_rows<5>(tile, row);
    case 4:
      return multiply_rows<4>(tile, row);
    case 3:
      return multiply_rows<3>(tile, row);
    case 2:
      return multiply_rows<2>(tile, row);
    case 1:
      return multiply_rows<1>(tile, row);
    default:
      return;
  }
}

}  // namespace

const LinearKernels kLinearAvx512 = {
    .f32 = {.tile_panels = kTilePanels, .element_bytes = 4, .unpack = unpack, .multiply = multiply_f32},
};

}  // namespace pkv
#endif  // __x86_64__
