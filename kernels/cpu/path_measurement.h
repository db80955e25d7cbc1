// The work by which two paths of a use are compared: seconds on each, and whether both compute the same.
#pragma once

#include "kernels/cpu/attention/attention_kernels.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/path_choice.h"
#include "kernels/operation_args.h"

namespace pkv {

// Rows times a small matrix of 4-bit weights, deep enough that AMX sums it in two parts. Zeros where there is no memory
// for it; loading a model will say so.
PathTime measure_products(Phase phase, const LinearKernels& higher, const LinearKernels& lower);

// Rows against one tile of slots, as a prompt's attention runs them.
PathTime measure_attention(const PanelKernels& higher, const PanelKernels& lower);

}  // namespace pkv
