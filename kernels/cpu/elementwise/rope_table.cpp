// Angles of rotary position embeddings, computed once per step.
#include "kernels/cpu/elementwise/rope_table.h"

#include <algorithm>
#include <cmath>

#include "kernels/cpu/parallel.h"

namespace pkv {
namespace {

// Of one angle in double precision, against an element read and written.
constexpr int64_t kCosineAndSine = 64;

}  // namespace

void RopeTable::prepare(std::span<const int32_t> positions, const RopeSpec& spec, ThreadPool& pool) {
  const std::span frequencies(spec.inv_freq, static_cast<size_t>(spec.pairs));
  if (std::ranges::equal(positions, positions_) && std::ranges::equal(frequencies, inv_freq_) &&
      spec.magnitude == magnitude_) {
    return;
  }
  positions_.assign(positions.begin(), positions.end());
  inv_freq_.assign(frequencies.begin(), frequencies.end());
  magnitude_ = spec.magnitude;
  values_.resize(2 * positions.size() * inv_freq_.size());
  parallel_for(pool, static_cast<int64_t>(positions.size()), kCosineAndSine * pairs(), [&](int64_t row) {
    float* cosine = values_.data() + 2 * row * pairs();
    float* sine = cosine + pairs();
    for (int64_t i = 0; i < pairs(); ++i) {
      const double angle = static_cast<float>(positions_[row]) * inv_freq_[i];
      cosine[i] = static_cast<float>(std::cos(angle)) * magnitude_;
      sine[i] = static_cast<float>(std::sin(angle)) * magnitude_;
    }
  });
}

}  // namespace pkv
