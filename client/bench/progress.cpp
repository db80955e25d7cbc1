// Draws at most ten times a second, or writes a line every ten seconds.
#include "client/bench/progress.h"

#include <cmath>
#include <iostream>

#include "absl/strings/str_format.h"

namespace pkv::client {

std::string progress_line(const BenchState& state) {
  constexpr int kWidth = 24;
  const double rate = state.seconds > 0 ? static_cast<double>(state.generated_tokens) / state.seconds : 0;
  const int filled = static_cast<int>(std::lround(kWidth * state.done_share));
  return absl::StrFormat("[%s%s] %3.0f %%  %.0f s  started %d  in flight %d  completed %d  unsuccessful %d  %.1f tok/s",
                         std::string(static_cast<size_t>(filled), '#'),
                         std::string(static_cast<size_t>(kWidth - filled), '.'), 100 * state.done_share, state.seconds,
                         state.started, state.in_flight, state.completed, state.unsuccessful, rate);
}

void BenchProgress::show(const BenchState& state) {
  if (state.seconds - shown_at_ < (terminal_ ? 0.1 : 10.0)) return;
  shown_at_ = state.seconds;
  if (!terminal_) {
    std::cerr << progress_line(state) << "\n";
    return;
  }
  std::cerr << "\r" << progress_line(state) << "\x1b[K" << std::flush;
  drawn_ = true;
}

BenchProgress::~BenchProgress() {
  if (drawn_) std::cerr << "\r\x1b[2K" << std::flush;
}

}  // namespace pkv::client
