// What became of the connections of a port.
#pragma once

#include <cstdint>

namespace pkv {

struct ConnectionCounts {
  uint64_t open = 0;
  uint64_t refused_total = 0;
};

}  // namespace pkv
