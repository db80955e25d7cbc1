// Chooses, part by part, the best kernels among what the features allow.
#include "kernels/cpu/kernel_table.h"

#include "kernels/cpu/isa.h"

namespace pkv {

LinearKernels select_linear_kernels(const IsaFeatures& features) {
  LinearKernels kernels = kLinearScalar;
#if defined(__x86_64__)
  const auto prefer = [&kernels](const LinearKernels& better) {
    if (better.f32.multiply != nullptr) kernels.f32 = better.f32;
    if (better.bf16.multiply != nullptr) kernels.bf16 = better.bf16;
    if (better.int8.multiply != nullptr) kernels.int8 = better.int8;
  };
  if (features.avx2) prefer(kLinearAvx2);
  if (features.avx512) prefer(kLinearAvx512);
  if (features.vnni) prefer(kLinearAvx512Vnni);
  if (features.bf16) prefer(kLinearAvx512Bf16);
#else
  static_cast<void>(features);
#endif
  return kernels;
}

ElementwiseKernels select_elementwise_kernels(const IsaFeatures& features) {
#if defined(__x86_64__)
  if (features.avx512) return kElementwiseAvx512;
  if (features.avx2) return kElementwiseAvx2;
#else
  static_cast<void>(features);
#endif
  return kElementwiseScalar;
}

}  // namespace pkv
