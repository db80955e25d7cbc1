// Matrix products with AVX512_BF16: weights and activations rounded to bfloat16, products of pairs summed in float32 by
// vdpbf16ps.
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

void unpack(const PackedView& weight, int64_t panel, int64_t k0, int64_t k1, void* tile, int32_t slot) {
  auto* to = static_cast<uint32_t*>(tile) + slot * kPanelOutputs;
  if (weight.scale_kind != ScaleKind::kNone) {
    for_each_quad(weight, panel, k0, k1, [to](int, const V::Type(&values)[4], int64_t quad) {
      uint32_t* rows = to + 2 * quad * kTileOutputs;
      store_pairs(values[0], values[1], rows);
      store_pairs(values[2], values[3], rows + kTileOutputs);
    });
    return;
  }
  const uint8_t* codes = weight.codes + panel * weight.panel_code_bytes;
  for (int64_t k = k0; k < k1; k += 2, to += kTileOutputs) {
    const V::Type odd = k + 1 < k1 ? load_weights(weight.code_kind, codes, k + 1, 0) : V::broadcast(0.0f);
    store_pairs(load_weights(weight.code_kind, codes, k, 0), odd, to);
  }
}

struct Bfloat16Product {
  static constexpr int32_t kInputs = 2;
  typedef int32_t __attribute__((may_alias)) A;
  using B = uint32_t;
  using Weights = __m512bh;
  static __m512bh broadcast(int32_t a) { return (__m512bh)_mm512_set1_epi32(a); }
  static __m512bh load(const uint32_t* b) { return (__m512bh)_mm512_loadu_si512(b); }
  static V::Type multiply_add(__m512bh x, __m512bh w, V::Type sum) { return _mm512_dpbf16_ps(sum, x, w); }
};

void convert_row(const float* from, int64_t cols, void* to) {
  auto* bits = static_cast<uint16_t*>(to);
  int64_t k = 0;
  for (; k + 16 <= cols; k += 16) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(bits + k), (__m256i)_mm512_cvtneps_pbh(V::load(from + k)));
  }
  if (k == cols) return;
  const auto rest = static_cast<int32_t>(cols - k);
  const __mmask16 even = V::first_mask((rest + 1) / 2 * 2);
  _mm256_mask_storeu_epi16(bits + k, even, (__m256i)_mm512_cvtneps_pbh(V::load_first(from + k, rest)));
}

}  // namespace

template <>
constinit const GemmKernels PathTable<GemmKernels, Isa::kAvx512Bf16>::kernels = {
    .tile_panels = kTilePanels,
    .element_bytes = 2,
    .unpack = unpack,
    .multiply = multiply_tile<Bfloat16Product>,
    .convert_row = convert_row};

}  // namespace pkv
