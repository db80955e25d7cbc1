// Values of one page as float32 [count][head_dim].
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/attention/attention_kernels.h"
#include "kernels/entry_format.h"

namespace pkv {

// Those of `count` slots from `begin` on: where they lie if they are float32, otherwise in `room` for as many.
const float* load_page_values(const AttentionKernels& kernels, const PageLayout& layout, const std::byte* page,
                              int32_t begin, int32_t count, float* room);

}  // namespace pkv
