// Plain access to a lane's entries for the reference backend: single keys and values, and all of a lane as dense
// float32 rows.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/entry_format.h"

namespace pkv {

// The key or the value [head_dim] of the entry at a page's place, as numbers and back: rounded to the format.
void load_key(const PageLayout& layout, const std::byte* page, int32_t place, float* key);
void load_value(const PageLayout& layout, const std::byte* page, int32_t place, float* value);
void store_key(const PageLayout& layout, std::byte* page, int32_t place, const float* key);
void store_value(const PageLayout& layout, std::byte* page, int32_t place, const float* value);

// The first slots of a lane: keys and values [count, head_dim].
struct UnpackedLane {
  UnpackedLane(const KvView& kv, const Lane& lane, int32_t count);
  const float* key(int64_t slot) const { return keys.data() + slot * head_dim; }
  const float* value(int64_t slot) const { return values.data() + slot * head_dim; }

  std::vector<float> keys, values;
  int32_t head_dim = 0;
};

}  // namespace pkv
