// See unpacked_lane.h.
#include "kernels/reference/unpacked_lane.h"

#include <cstring>

#include "kernels/check.h"
#include "kernels/quant.h"

namespace pkv {

float load_element(const std::byte* at, ElementType type) {
  if (type == ElementType::kF32) {
    float value;
    std::memcpy(&value, at, sizeof(value));
    return value;
  }
  uint16_t half;
  std::memcpy(&half, at, sizeof(half));
  return half_to_float(half);
}

void store_element(std::byte* at, ElementType type, float value) {
  if (type == ElementType::kF32) {
    std::memcpy(at, &value, sizeof(value));
    return;
  }
  const uint16_t half = float_to_half(value);
  std::memcpy(at, &half, sizeof(half));
}

UnpackedLane::UnpackedLane(const KvView& kv, const Lane& lane, int32_t count) : head_dim(kv.head_dim) {
  PKV_CHECK(count <= lane.length, "more slots are seen than the lane has");
  const PageLayout layout = page_layout(kv, lane);
  keys.resize(static_cast<size_t>(count) * static_cast<size_t>(head_dim));
  values.resize(keys.size());
  for (int32_t slot = 0; slot < count; ++slot) {
    const int32_t place = slot % layout.slots();
    const std::byte* page = kv.page(lane, slot / layout.slots());
    for (int32_t i = 0; i < head_dim; ++i) {
      const auto to = static_cast<size_t>(int64_t{slot} * head_dim + i);
      keys[to] = load_element(page + layout.key_at(place, i), layout.format().key.element);
      values[to] = load_element(page + layout.value_at(place, i), layout.format().value.element);
    }
  }
}

}  // namespace pkv
