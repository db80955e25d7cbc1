// What the operating system says of this process, for the standard process metrics.
#pragma once

#include <cstdint>
#include <optional>

namespace pkv {

struct ProcessStats {
  double cpu_seconds = 0;         // user and system
  double start_time_seconds = 0;  // since 1970
  uint64_t resident_bytes = 0;
  uint64_t virtual_bytes = 0;
  uint64_t threads = 0;
  uint64_t open_fds = 0;
  double max_fds = 0;  // infinite: no limit
};

// Reads /proc. Nothing where there is none that can be read.
std::optional<ProcessStats> read_process_stats();

}  // namespace pkv
