// How far a run is, on standard error.
#pragma once

#include <string>

#include "client/bench/runner.h"

namespace pkv::client {

// "[#####.....]  50 %  30 s  started 60 ...". Tokens a second are those of completed calls, since the beginning.
std::string progress_line(const BenchState& state);

// A bar that is redrawn on a terminal, elsewhere a line every ten seconds.
class BenchProgress {
 public:
  explicit BenchProgress(bool terminal) : terminal_(terminal) {}
  ~BenchProgress();
  void show(const BenchState& state);

 private:
  const bool terminal_;
  bool drawn_ = false;
  double shown_at_ = 0;
};

}  // namespace pkv::client
