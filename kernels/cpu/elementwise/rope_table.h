// Cosines and sines of a step's positions. All layers of a step, queries and keys alike, turn by the same angles, so
// the last table is kept and only made anew when positions or frequencies differ.
#pragma once

#include <span>
#include <vector>

#include "kernels/backend.h"
#include "kernels/cpu/thread_pool.h"

namespace pkv {

class RopeTable {
 public:
  // Angle of pair i: float(position) * inv_freq[i] in float32, its cosine and sine in double, rounded.
  void prepare(std::span<const int32_t> positions, const RopeSpec& spec, ThreadPool& pool);
  const float* cosines(int64_t row) const { return values_.data() + 2 * row * pairs(); }
  const float* sines(int64_t row) const { return cosines(row) + pairs(); }

 private:
  int64_t pairs() const { return static_cast<int64_t>(inv_freq_.size()); }

  std::vector<int32_t> positions_;
  std::vector<float> inv_freq_;
  float magnitude_ = 0;
  std::vector<float> values_;  // [rows][cosines, sines][pairs]
};

}  // namespace pkv
