// The keys of one page as float32 [head_dim][slots], and back.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/attention/attention_kernels.h"
#include "kernels/entry_format.h"

namespace pkv {

// Where they lie if they are float32, otherwise in `room` for as many.
float* load_page_keys(const AttentionKernels& kernels, const PageLayout& layout, std::byte* page, float* room);

// Which of a page's keys changed: the first `dims` dimensions of slots [begin, end).
struct ChangedKeys {
  int32_t dims = 0;
  int32_t begin = 0;
  int32_t end = 0;
};
// Rounds what load_page_keys() gave, and was changed, to the format again.
void store_page_keys(const AttentionKernels& kernels, const PageLayout& layout, std::byte* page, const float* keys,
                     const ChangedKeys& changed);

}  // namespace pkv
