// The element by element kernels for AVX2.
#if defined(__x86_64__)
#include "kernels/cpu/kernel_table.h"

namespace pkv {
namespace {
#include "kernels/cpu/elementwise/elementwise.inc"
}  // namespace

const ElementwiseKernels kElementwiseAvx2 = kKernels;

}  // namespace pkv
#endif  // __x86_64__
