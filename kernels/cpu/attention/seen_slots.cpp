#include "kernels/cpu/attention/seen_slots.h"

#include <algorithm>
#include <span>

namespace pkv {

SeenSlots seen_slots(const SparsePattern& pattern, int32_t kv_head, int32_t block) {
  const std::span bands(pattern.bands.i32_row(kv_head), static_cast<size_t>(pattern.bands.cols));
  const std::span columns(pattern.columns.i32_row(kv_head), static_cast<size_t>(pattern.columns.cols));
  SeenSlots seen;
  const auto end = std::upper_bound(bands.begin(), bands.end(), block);
  if (end == bands.begin() || *(end - 1) != block) seen.blocks.push_back(0);
  for (auto band = end; band != bands.begin(); --band) seen.blocks.push_back(block - *(band - 1));
  auto next = seen.blocks.begin();
  for (const int32_t column : columns) {
    const int32_t at = column / kSparseBlock;
    if (at >= block) break;
    next = std::lower_bound(next, seen.blocks.end(), at);
    if (*next != at) seen.columns.push_back(column);
  }
  return seen;
}

}  // namespace pkv
