// Puts together, part by part, the kernels of the paths that were chosen.
#include "kernels/cpu/kernel_table.h"

#include "kernels/cpu/path_choice.h"

namespace pkv {

LinearKernels select_linear_kernels(const CpuPaths& paths) {
  LinearKernels kernels = kLinearScalar;
#if defined(__x86_64__)
  if (paths.features.avx2) kernels.f32 = kLinearAvx2.f32;
  if (paths.features.avx512) kernels.f32 = kLinearAvx512.f32;
  if (paths.prompt_products.bf16) kernels.bf16 = kLinearAvx512Bf16.bf16;
  if (paths.decode_products.avx2) kernels.int8 = kLinearAvx2.int8;
  if (paths.decode_products.vnni) kernels.int8 = kLinearAvx512Vnni.int8;
#else
  static_cast<void>(paths);
#endif
  return kernels;
}

ElementwiseKernels select_elementwise_kernels(const IsaFeatures& features) {
#if defined(__x86_64__)
  if (features.avx512) return PathTable<ElementwiseKernels, Isa::kAvx512>::kernels;
  if (features.avx2) return PathTable<ElementwiseKernels, Isa::kAvx2>::kernels;
#else
  static_cast<void>(features);
#endif
  return PathTable<ElementwiseKernels, Isa::kScalar>::kernels;
}

}  // namespace pkv
