// The best of one row of logits.
#pragma once

#include <array>
#include <cstdint>

#include "kernels/cpu/kernel_table.h"
#include "kernels/sampling.h"

namespace pkv {

// Some kilobytes on the stack, and nothing else. The row must not change while this lives.
class RowRanking {
 public:
  // logits [vocabulary], at least one.
  RowRanking(const float* logits, int64_t vocabulary, const ElementwiseKernels& kernels);
  float largest() const;
  // The `count` best in order; count in [1, min(vocabulary, kMostRanked)].
  void best(int32_t count, RankedToken* to) const;

 private:
  static constexpr int64_t kMostBlocks = 4096;

  // At least `count` logits are as large as this.
  float lower_bound_of_best(int32_t count) const;

  const float* logits_;
  int64_t vocabulary_, block_, blocks_;
  std::array<float, kMostBlocks> maxima_;  // [blocks_]
};

}  // namespace pkv
