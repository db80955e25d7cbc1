// Matrix products with AVX512_BF16: weights and activations rounded to bfloat16, products of pairs summed in float32 by
// vdpbf16ps.
#include "kernels/cpu/linear/bf16_operands.h"

namespace pkv {
namespace {

struct Bfloat16Product {
  static constexpr int32_t kInputs = 2;
  typedef int32_t __attribute__((may_alias)) A;
  using B = uint32_t;
  using Weights = __m512bh;
  static __m512bh broadcast(int32_t a) { return (__m512bh)_mm512_set1_epi32(a); }
  static __m512bh load(const uint32_t* b) { return (__m512bh)_mm512_loadu_si512(b); }
  static V::Type multiply_add(__m512bh x, __m512bh w, V::Type sum) { return _mm512_dpbf16_ps(sum, x, w); }
};

}  // namespace

template <>
constinit const GemmKernels PathTable<GemmKernels, Isa::kAvx512Bf16>::kernels = {
    .tile_panels = kTilePanels,
    .element_bytes = 2,
    .depth_multiple = Bfloat16Product::kInputs,
    .unpack = unpack_pairs<Bfloat16Product::kInputs, kTileOutputs>,
    .multiply = multiply_tile<Bfloat16Product>,
    .convert_row = round_row<Bfloat16Product::kInputs>};

}  // namespace pkv
