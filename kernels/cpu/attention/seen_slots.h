// What the rows of one block of a prompt see under a pattern (kernels/sparse_attention.h).
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/sparse_attention.h"

namespace pkv {

struct SeenSlots {
  std::vector<int32_t> columns;  // slots in none of the blocks, ascending; all rows of the block see them
  std::vector<int32_t> blocks;   // ascending; the last is the rows' own
};

// Of a block that is not dense.
SeenSlots seen_slots(const SparsePattern& pattern, int32_t kv_head, int32_t block);

}  // namespace pkv
