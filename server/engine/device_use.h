// A device's memory by what it is used for: what stats and metrics say of it.
#pragma once

#include <cstdint>

#include "server/engine/stats.h"

namespace pkv {

// Bytes. All but staging add up to what the process has of the device.
struct DeviceUse {
  uint64_t weights = 0, kv_live = 0, kv_free = 0, workspace = 0, step = 0, other = 0, idle = 0, staging = 0;
};

// `stats.device` is there.
inline DeviceUse device_use(const EngineStats& stats) {
  const DeviceMemory& memory = *stats.device;
  // Its parts are read one after another: another thread may have asked for memory in between.
  const auto rest = [](uint64_t whole, uint64_t parts) { return whole > parts ? whole - parts : 0; };
  DeviceUse use{.weights = memory.weights,
                .kv_live = stats.live_bytes,
                .kv_free = stats.free_bytes,
                .workspace = memory.tensors,
                .step = memory.staged,
                .idle = rest(memory.reserved, memory.used),
                .staging = memory.pinned};
  use.other = rest(memory.used, use.weights + use.kv_live + use.kv_free + use.workspace + use.step);
  return use;
}

}  // namespace pkv
