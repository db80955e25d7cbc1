// Weights unpacked to pairs of bfloat16, and rows of activations rounded to it, padded with zeros to a multiple of
// kMultiple inputs. For sources that are compiled for AVX512_BF16.
#pragma once

#include <immintrin.h>

#include "kernels/cpu/linear/gemm_tile.h"

namespace pkv {
namespace {

// Rounds inputs k and k + 1 of 16 outputs and stores them as one pair per output.
inline void store_pairs(V::Type even, V::Type odd, uint32_t* to) {
  const __m512i rounded = (__m512i)_mm512_cvtne2ps_pbh(odd, even);  // low half: even, high half: odd
  const __m512i interleave =
      _mm512_add_epi32(_mm512_set1_epi32(16 << 16),
                       _mm512_mullo_epi32(_mm512_set1_epi32(0x10001),
                                          _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)));
  _mm512_storeu_si512(to, _mm512_permutexvar_epi16(interleave, rounded));
}

// GemmKernels::unpack, to [tile outputs / kColumns][padded inputs / 2][kColumns]. Quantised weights have whole groups
// of 16 or 32 inputs.
template <int64_t kMultiple, int32_t kColumns>
void unpack_pairs(const PackedView& weight, int64_t panel, int64_t k0, int64_t k1, void* tile, int32_t slot) {
  const int64_t pairs = (k1 - k0 + 1) / 2, padded = (k1 - k0 + kMultiple - 1) / kMultiple * kMultiple / 2;
  const int32_t column = slot * kPanelOutputs;
  auto* to = static_cast<uint32_t*>(tile) + column / kColumns * padded * kColumns + column % kColumns;
  if (weight.scale_kind != ScaleKind::kNone) {
    for_each_quad(weight, panel, k0, k1, [to](int, const V::Type(&values)[4], int64_t quad) {
      uint32_t* rows = to + 2 * quad * kColumns;
      store_pairs(values[0], values[1], rows);
      store_pairs(values[2], values[3], rows + kColumns);
    });
    to += pairs * kColumns;
  } else {
    const uint8_t* codes = weight.codes + panel * weight.panel_code_bytes;
    for (int64_t k = k0; k < k1; k += 2, to += kColumns) {
      const V::Type odd = k + 1 < k1 ? load_weights(weight.code_kind, codes, k + 1, 0) : V::broadcast(0.0f);
      store_pairs(load_weights(weight.code_kind, codes, k, 0), odd, to);
    }
  }
  for (int64_t pair = pairs; pair < padded; ++pair, to += kColumns) {
    _mm512_storeu_si512(to, _mm512_setzero_si512());
  }
}

// GemmKernels::convert_row.
template <int64_t kMultiple>
void round_row(const float* from, int64_t cols, void* to) {
  auto* bits = static_cast<uint16_t*>(to);
  int64_t k = 0;
  for (; k + 16 <= cols; k += 16) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(bits + k), (__m256i)_mm512_cvtneps_pbh(V::load(from + k)));
  }
  if (k < cols) {
    const auto rest = static_cast<int32_t>(cols - k);
    const __mmask16 even = V::first_mask((rest + 1) / 2 * 2);
    _mm256_mask_storeu_epi16(bits + k, even, (__m256i)_mm512_cvtneps_pbh(V::load_first(from + k, rest)));
    k += (rest + 1) / 2 * 2;
  }
  for (; k % kMultiple != 0; ++k) bits[k] = 0;
}

}  // namespace
}  // namespace pkv
