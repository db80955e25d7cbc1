// Matrix products with AVX512_BF16: weights and activations rounded to bfloat16, products summed in float32 by
// vdpbf16ps, in tiles of 6 rows by 64 outputs.
#if defined(__x86_64__)
#include <immintrin.h>

#include "kernels/cpu/kernel_table.h"

namespace pkv {
namespace {

#include "kernels/cpu/linear/linear_avx512.inc"

constexpr int kTilePanels = 4;
constexpr int kTileOutputs = kTilePanels * kP;  // 32-bit pairs of inputs in a row of the tile buffer

// Rounds inputs k and k+1 of 16 outputs and stores them as one pair per output.
inline void store_pairs(__m512 even, __m512 odd, uint32_t* to) {
  const __m512i rounded = (__m512i)_mm512_cvtne2ps_pbh(odd, even);  // low half: even, high half: odd
  const __m512i interleave =
      _mm512_add_epi32(_mm512_set1_epi32(16 << 16),
                       _mm512_mullo_epi32(_mm512_set1_epi32(0x10001),
                                          _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)));
  _mm512_storeu_si512(to, _mm512_permutexvar_epi16(interleave, rounded));
}

// Codes of four inputs, one in each byte of an output's 32-bit lane, to two rows of pairs.
inline void unpack_quad(__m512i codes, const Scales& s, uint32_t* to) {
  const __m512i mask = _mm512_set1_epi32(255);
  __m512 values[4];
  for (int t = 0; t < 4; ++t) {
    values[t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_and_si512(codes, mask)), s.scale, s.min);
    codes = _mm512_srli_epi32(codes, 8);
  }
  store_pairs(values[0], values[1], to);
  store_pairs(values[2], values[3], to + kTileOutputs);
}

void unpack(const PackedView& weight, int64_t panel, int64_t k0, int64_t k1, void* tile, int32_t slot) {
  auto* to = static_cast<uint32_t*>(tile) + slot * kP;
  const uint8_t* codes = weight.codes + panel * weight.panel_code_bytes;
  if (weight.scale_kind == ScaleKind::kNone) {
    for (int64_t k = k0; k < k1; k += 2, to += kTileOutputs) {
      const __m512 odd = k + 1 < k1 ? load_floats(weight.code_kind, codes, k + 1) : _mm512_setzero_ps();
      store_pairs(load_floats(weight.code_kind, codes, k), odd, to);
    }
    return;
  }
  const uint8_t* scales = weight.scales + panel * weight.panel_scale_bytes;
  const __m512i nibble = _mm512_set1_epi8(15);
  for (int64_t k = k0; k < k1; k += weight.group) {
    const Scales s = load_scales(weight, scales, k / weight.group);
    if (weight.code_kind == CodeKind::kByte) {
      for (int64_t q = k / 4; q < (k + weight.group) / 4; ++q, to += 2 * kTileOutputs) {
        unpack_quad(_mm512_loadu_si512(codes + q * 64), s, to);
      }
      continue;
    }
    for (int64_t q = k / 8; q < (k + weight.group) / 8; ++q, to += 4 * kTileOutputs) {
      const __m512i packed = _mm512_loadu_si512(codes + q * 64);
      unpack_quad(_mm512_and_si512(packed, nibble), s, to);
      unpack_quad(_mm512_and_si512(_mm512_srli_epi16(packed, 4), nibble), s, to + 2 * kTileOutputs);
    }
  }
}

typedef int32_t __attribute__((may_alias)) BfloatPair;

template <int kRows>
void multiply_rows(const GemmTile& tile, int32_t row) {
  const int64_t stride = tile.a_stride / 2;  // pairs
  const auto* a = static_cast<const BfloatPair*>(tile.a) + row * stride;
  const auto* b = static_cast<const uint32_t*>(tile.b);
  float* partial = tile.partial + static_cast<int64_t>(row) * kTileOutputs;
  __m512 sums[kRows][kTilePanels];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int p = 0; p < kTilePanels; ++p) {
      sums[r][p] = tile.first ? _mm512_setzero_ps() : _mm512_loadu_ps(partial + r * kTileOutputs + p * kP);
    }
  }
  for (int64_t pair = 0; pair < (tile.depth + 1) / 2; ++pair, b += kTileOutputs) {
    __m512bh w[kTilePanels];
#pragma GCC unroll 4
    for (int p = 0; p < kTilePanels; ++p) w[p] = (__m512bh)_mm512_loadu_si512(b + p * kP);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const __m512bh x = (__m512bh)_mm512_set1_epi32(a[r * stride + pair]);
#pragma GCC unroll 4
      for (int p = 0; p < kTilePanels; ++p) sums[r][p] = _mm512_dpbf16_ps(sums[r][p], x, w[p]);
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

void multiply_bf16(const GemmTile& tile) {
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

void convert_row(const float* from, int64_t cols, void* to) {
  auto* bits = static_cast<uint16_t*>(to);
  int64_t k = 0;
  for (; k + 16 <= cols; k += 16) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(bits + k), (__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(from + k)));
  }
  if (k == cols) return;
  const __m512 rest = _mm512_maskz_loadu_ps(valid_outputs(cols - k), from + k);
  const __mmask16 even = valid_outputs((cols - k + 1) / 2 * 2);
  _mm256_mask_storeu_epi16(bits + k, even, (__m256i)_mm512_cvtneps_pbh(rest));
}

}  // namespace

const LinearKernels kLinearAvx512Bf16 = {
    .bf16 = {.tile_panels = kTilePanels,
             .element_bytes = 2,
             .unpack = unpack,
             .multiply = multiply_bf16,
             .convert_row = convert_row},
};

}  // namespace pkv
#endif  // __x86_64__
