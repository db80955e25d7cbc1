// The element by element kernels for any CPU.
#include "kernels/cpu/kernel_table.h"

namespace pkv {
namespace {
#include "kernels/cpu/elementwise/elementwise.inc"
}  // namespace

const ElementwiseKernels kElementwiseScalar = kKernels;

}  // namespace pkv
