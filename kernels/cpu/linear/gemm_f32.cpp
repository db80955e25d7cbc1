// Float32 matrix products: compiled once per instruction set (CMakeLists.txt).
#include "kernels/cpu/linear/gemm_tile.h"

namespace pkv {
namespace {

void unpack(const PackedView& weight, int64_t panel, int64_t k0, int64_t k1, void* tile, int32_t slot) {
  auto* to = static_cast<float*>(tile) + slot * kPanelOutputs;
  if (weight.scale_kind != ScaleKind::kNone) {
    for_each_quad(weight, panel, k0, k1, [to](int p, const V::Type(&values)[4], int64_t quad) {
      float* rows = to + 4 * quad * kTileOutputs + p * V::kWidth;
#pragma GCC unroll 4
      for (int t = 0; t < 4; ++t) V::store(rows + t * kTileOutputs, values[t]);
    });
    return;
  }
  const uint8_t* codes = weight.codes + panel * weight.panel_code_bytes;
  const int64_t bytes = (weight.code_kind == CodeKind::kF32 ? 4 : 2) * kPanelOutputs;
  for (int64_t k = k0; k < k1; ++k, to += kTileOutputs) {
    // The panel's next chunk: with few rows chunks are too short for the hardware to foresee where it lies.
    __builtin_prefetch(codes + (k + k1 - k0) * bytes);
#pragma GCC unroll 4
    for (int p = 0; p < kParts; ++p) V::store(to + p * V::kWidth, load_weights(weight.code_kind, codes, k, p));
  }
}

struct FloatProduct {
  static constexpr int32_t kInputs = 1;
  using A = float;
  using B = float;
  using Weights = V::Type;
  static V::Type broadcast(float a) { return V::broadcast(a); }
  static V::Type load(const float* b) { return V::load(b); }
  static V::Type multiply_add(V::Type x, V::Type w, V::Type sum) { return V::fma(x, w, sum); }
};

}  // namespace

template <>
constinit const GemmKernels PathTable<GemmKernels, kIsa>::kernels = {
    .tile_panels = kTilePanels, .element_bytes = 4, .unpack = unpack, .multiply = multiply_tile<FloatProduct>};

}  // namespace pkv
