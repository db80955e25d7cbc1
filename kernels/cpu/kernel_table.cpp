// Puts together, part by part, the kernels of the paths that were chosen.
#include "kernels/cpu/kernel_table.h"

#include "kernels/cpu/path_choice.h"

namespace pkv {

LinearKernels select_linear_kernels(const CpuPaths& paths) {
  LinearKernels kernels{.f32 = PathTable<GemmKernels, Isa::kScalar>::kernels,
                        .int8 = PathTable<Int8Kernels, Isa::kScalar>::kernels};
#if defined(__x86_64__)
  if (paths.features.avx2) kernels.f32 = PathTable<GemmKernels, Isa::kAvx2>::kernels;
  if (paths.features.avx512) kernels.f32 = PathTable<GemmKernels, Isa::kAvx512>::kernels;
  if (paths.prompt_products.bf16) kernels.bf16 = PathTable<GemmKernels, Isa::kAvx512Bf16>::kernels;
  if (paths.prompt_products.amx) kernels.bf16 = PathTable<GemmKernels, Isa::kAmxBf16>::kernels;
  if (paths.tolerant_in_8_bits) kernels.int8_gemm = PathTable<GemmKernels, Isa::kAvx512Vnni>::kernels;
  if (paths.decode_products.avx2) kernels.int8 = PathTable<Int8Kernels, Isa::kAvx2>::kernels;
  if (paths.decode_products.vnni) kernels.int8 = PathTable<Int8Kernels, Isa::kAvx512Vnni>::kernels;
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
