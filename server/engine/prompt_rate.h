// How fast prompts are read, as it was measured: what no prompt will be faster than. The engine thread adds, any thread
// may ask.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "absl/time/time.h"

namespace pkv {

class PromptRate {
 public:
  // Units of `work` multiply-adds in all took so long, nothing else included.
  void add(int64_t work, absl::Duration time);
  // Multiply-adds a second, the most of what was measured lately; 0: nothing was.
  double best() const { return best_; }
  // For so much of a prompt, at least; zero where nothing was measured.
  absl::Duration least_time(int64_t work) const;

 private:
  // A figure is of units that took so long together: single ones say little. The last figures count.
  static constexpr absl::Duration kWindow = absl::Milliseconds(100);
  static constexpr size_t kWindows = 64;

  int64_t work_ = 0;  // of the window that is not full yet
  absl::Duration time_;
  std::array<double, kWindows> rates_ = {};
  size_t next_ = 0;
  std::atomic<double> best_ = 0;
};

}  // namespace pkv
