#include "server/engine/prompt_rate.h"

#include <algorithm>

namespace pkv {

void PromptRate::add(int64_t work, absl::Duration time) {
  work_ += work;
  time_ += time;
  if (time_ < kWindow) return;
  rates_[next_++ % kWindows] = static_cast<double>(work_) / absl::ToDoubleSeconds(time_);
  work_ = 0;
  time_ = absl::ZeroDuration();
  best_ = std::ranges::max(rates_);
}

absl::Duration PromptRate::least_time(int64_t work) const {
  const double rate = best_;
  return rate == 0 ? absl::ZeroDuration() : absl::Seconds(static_cast<double>(work) / rate);
}

}  // namespace pkv
