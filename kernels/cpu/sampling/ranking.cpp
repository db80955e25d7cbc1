// Ranking by blocks: of a long row only the blocks whose largest logit is among the best are looked into.
#include "kernels/cpu/sampling/ranking.h"

#include <algorithm>
#include <functional>
#include <limits>

namespace pkv {
namespace {

constexpr int64_t kBlockUnit = 64;
constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

bool ranks_before(const RankedToken& a, const RankedToken& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
}

}  // namespace

RowRanking::RowRanking(const float* logits, int64_t vocabulary, const ElementwiseKernels& kernels)
    : logits_(logits), vocabulary_(vocabulary) {
  constexpr int64_t kLongest = kMostBlocks * kBlockUnit;  // with the smallest blocks
  block_ = kBlockUnit * ((vocabulary + kLongest - 1) / kLongest);
  blocks_ = (vocabulary + block_ - 1) / block_;
  kernels.block_maxima(logits, vocabulary, block_, maxima_.data());
}

float RowRanking::largest() const { return *std::max_element(maxima_.begin(), maxima_.begin() + blocks_); }

float RowRanking::lower_bound_of_best(int32_t count) const {
  if (count == 1) return largest();
  if (count > blocks_) return kMinusInfinity;
  std::array<float, kMostBlocks> sorted;
  std::copy_n(maxima_.begin(), blocks_, sorted.begin());
  const auto last = sorted.begin() + (count - 1);
  std::nth_element(sorted.begin(), last, sorted.begin() + blocks_, std::greater<>());
  return *last;
}

void RowRanking::best(int32_t count, RankedToken* to) const {
  std::array<RankedToken, 4 * kMostRanked> found;
  auto end = found.begin();
  float bound = lower_bound_of_best(count);
  bool full = false;  // `count` tokens before this one are as good as `bound`: only better ones are wanted
  for (int64_t block = 0; block < blocks_; ++block) {
    if (maxima_[static_cast<size_t>(block)] < bound) continue;
    const int64_t last = std::min(vocabulary_, (block + 1) * block_);
    for (int64_t v = block * block_; v < last; ++v) {
      const float logit = logits_[v] > kMinusInfinity ? logits_[v] : kMinusInfinity;  // NaN too
      if (logit < bound || (full && logit == bound)) continue;
      *end++ = {.token = static_cast<int32_t>(v), .logit = logit, .before = logit};
      if (end != found.end()) continue;
      end = found.begin() + count;
      std::nth_element(found.begin(), end - 1, found.end(), ranks_before);
      bound = end[-1].logit;
      full = true;
    }
  }
  if (end - found.begin() > count) std::nth_element(found.begin(), found.begin() + (count - 1), end, ranks_before);
  std::sort(found.begin(), found.begin() + count, ranks_before);
  std::copy_n(found.begin(), count, to);
}

}  // namespace pkv
