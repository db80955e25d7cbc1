// Attention of a prompt's rows to a part of what they could see, after the "vertical slash" pattern of MInference
// (arXiv 2407.02490, section 3): every row sees some columns, and the slots at some distances behind it. What a row
// sees depends on its slot alone, not on the rows that are computed with it. Plain data, the same on every backend.
#pragma once

#include <cstdint>

#include "kernels/tensor.h"

namespace pkv {

// Slots of a block, counted from the lane's start. Distances are those between the blocks of a row and of what it sees.
constexpr int32_t kSparseBlock = 64;

// Of one layer's lanes. The row of slot s, in block b, sees of the slots [0, s] those that are in block 0, in a block b
// - t where t is a band, or columns; a row in or behind the block of slot `dense_from` sees all of them.
struct SparsePattern {
  TensorView columns;      // [Hkv, C] i32, ascending in each row
  TensorView bands;        // [Hkv, B] i32, ascending in each row, the first two 0 and 1
  int32_t dense_from = 0;  // slot

  // Without one everything is seen.
  PKV_HOST_DEVICE bool is_set() const { return bands.data != nullptr; }
  PKV_HOST_DEVICE bool is_dense(int32_t block) const { return block >= dense_from / kSparseBlock; }
};

// What a pattern is chosen by: the attention of the newest `rows` rows of a prompt to its n = columns slots.
struct PatternMasses {
  TensorView columns;    // [Hq, n] sums over the rows, as Backend::column_mass() adds them
  TensorView diagonals;  // [Hq, n] sums over equal distances, as Backend::diagonal_mass() adds them
  int32_t rows = 0;      // 1 to kSparseBlock
};

}  // namespace pkv
