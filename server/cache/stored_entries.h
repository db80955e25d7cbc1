// Keys and values of a lane as numbers on the host, for what is computed there between two steps.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "server/cache/kv_cache.h"

namespace pkv {

enum class StoredPart : uint8_t { kKeys, kValues };

struct StoredLane {
  SequenceId sequence = nullptr;
  int32_t layer = 0;
  int32_t kv_head = 0;
};

// The keys or values at `slots` of the lane, as attention reads them, whatever their format: [slots, head_dim]. Waits
// for the backend.
std::vector<float> read_stored(const KvCache& cache, const StoredLane& lane, StoredPart part,
                               std::span<const int32_t> slots);

}  // namespace pkv
