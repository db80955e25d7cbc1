// Plain access to a lane's entries for the reference backend: single elements, and all of a lane as dense float32 rows.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/entry_format.h"

namespace pkv {

float load_element(const std::byte* at, ElementType type);
void store_element(std::byte* at, ElementType type, float value);

// The first slots of a lane: keys and values [count, head_dim].
struct UnpackedLane {
  UnpackedLane(const KvView& kv, const Lane& lane, int32_t count);
  const float* key(int64_t slot) const { return keys.data() + slot * head_dim; }
  const float* value(int64_t slot) const { return values.data() + slot * head_dim; }

  std::vector<float> keys, values;
  int32_t head_dim = 0;
};

}  // namespace pkv
