// How far the loading of the model is, for the log and for whoever asks whether the server is ready.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>

#include "absl/time/time.h"
#include "server/telemetry/log.h"

namespace pkv {

class LoadProgress {
 public:
  // `log` must outlive it.
  explicit LoadProgress(const Log& log) : log_(log) {}

  // From one thread: bytes of weights that are done, and all of them. A line in the log whenever kLogInterval has
  // passed since the last one or since the first call; a load that takes less has none.
  void tell(uint64_t done, uint64_t all);

  // "the model is being loaded", with "(43 % of 468 MiB)" once something of it is; thread-safe.
  std::string text() const;

  static constexpr absl::Duration kLogInterval = absl::Seconds(5);

 private:
  const Log& log_;
  absl::Time logged_ = absl::InfinitePast();
  std::atomic<uint64_t> done_ = 0, all_ = 0;
};

}  // namespace pkv
