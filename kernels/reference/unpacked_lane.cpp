// See unpacked_lane.h.
#include "kernels/reference/unpacked_lane.h"

#include <algorithm>
#include <cstring>

#include "kernels/check.h"
#include "kernels/entry_codes.h"
#include "kernels/quant.h"

namespace pkv {
namespace {

template <typename T>
T read_as(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof(value));
  return value;
}

template <typename T>
void write_as(std::byte* at, T value) {
  std::memcpy(at, &value, sizeof(value));
}

// Element `dimension` of a key or value: the number itself, or its code.
float load_element(const std::byte* at, ElementType type, int32_t dimension) {
  switch (type) {
    case ElementType::kF16:
      return half_to_float(read_as<uint16_t>(at));
    case ElementType::kF32:
      return read_as<float>(at);
    case ElementType::kBF16:
      return bfloat16_to_float(read_as<uint16_t>(at));
    case ElementType::kI8:
      return read_as<int8_t>(at);
    case ElementType::kI4: {
      const int32_t half = (read_as<uint8_t>(at) >> (dimension % 2 == 0 ? 0 : 4)) & 15;
      return static_cast<float>(half < 8 ? half : half - 16);
    }
  }
  PKV_CHECK(false, "an element of no known type");
}

void store_number(std::byte* at, ElementType type, float value) {
  if (type == ElementType::kF32) return write_as(at, value);
  write_as(at, type == ElementType::kF16 ? float_to_half(value) : float_to_bfloat16(value));
}

void store_code(std::byte* at, ElementType type, int32_t dimension, int32_t code) {
  if (type == ElementType::kI8) return write_as(at, static_cast<int8_t>(code));
  const int32_t half = code & 15, other = read_as<uint8_t>(at);
  write_as(at, static_cast<uint8_t>(dimension % 2 == 0 ? (other & 0xf0) | half : (other & 0x0f) | half << 4));
}

// Elements that share a scale.
int32_t group_of(const PageLayout& layout, const EntryPart& part) {
  return part.scale_group == 0 ? layout.head_dim() : part.scale_group;
}

// `element_at` and `scale_at` say where in the page an element and its scale lie.
template <typename ElementAt, typename ScaleAt>
void load_part(const PageLayout& layout, const EntryPart& part, const std::byte* page, ElementAt element_at,
               ScaleAt scale_at, float* out) {
  for (int32_t i = 0; i < layout.head_dim(); ++i) {
    out[i] = load_element(page + element_at(i), part.element, i);
    if (part.scale_bytes > 0) out[i] *= half_to_float(read_as<uint16_t>(page + scale_at(i)));
  }
  if (part.scale_bytes == 0) return;
  for (int32_t first = 0; first < layout.head_dim(); first += group_of(layout, part)) {
    mix(out + first, std::min(group_of(layout, part), layout.head_dim() - first));
  }
}

template <typename ElementAt, typename ScaleAt>
void store_part(const PageLayout& layout, const EntryPart& part, std::byte* page, ElementAt element_at,
                ScaleAt scale_at, const float* from) {
  if (part.scale_bytes == 0) {
    for (int32_t i = 0; i < layout.head_dim(); ++i) store_number(page + element_at(i), part.element, from[i]);
    return;
  }
  const int32_t group = group_of(layout, part);
  for (int32_t first = 0; first < layout.head_dim(); first += group) {
    const int32_t count = std::min(group, layout.head_dim() - first);
    std::vector<float> numbers(from + first, from + first + count);
    mix_group(numbers.data(), count);
    NumberRange range;
    for (const float number : numbers) range.add(number);
    const uint16_t scale = float_to_half(scale_for(part.element, range));
    write_as(page + scale_at(first), scale);
    const float inverse = inverse_of(half_to_float(scale));
    for (int32_t i = 0; i < count; ++i) {
      const int32_t code = code_of(part.element, numbers[static_cast<size_t>(i)] * inverse);
      store_code(page + element_at(first + i), part.element, first + i, code);
    }
  }
}

}  // namespace

void load_key(const PageLayout& layout, const std::byte* page, int32_t place, float* key) {
  load_part(
      layout, layout.format().key, page, [&](int32_t i) { return layout.key_at(place, i); },
      [&](int32_t i) { return layout.key_scale_at(place, i); }, key);
}

void load_value(const PageLayout& layout, const std::byte* page, int32_t place, float* value) {
  load_part(
      layout, layout.format().value, page, [&](int32_t i) { return layout.value_at(place, i); },
      [&](int32_t i) { return layout.value_scale_at(place, i); }, value);
}

void store_key(const PageLayout& layout, std::byte* page, int32_t place, const float* key) {
  store_part(
      layout, layout.format().key, page, [&](int32_t i) { return layout.key_at(place, i); },
      [&](int32_t i) { return layout.key_scale_at(place, i); }, key);
}

void store_value(const PageLayout& layout, std::byte* page, int32_t place, const float* value) {
  store_part(
      layout, layout.format().value, page, [&](int32_t i) { return layout.value_at(place, i); },
      [&](int32_t i) { return layout.value_scale_at(place, i); }, value);
}

UnpackedLane::UnpackedLane(const KvView& kv, const Lane& lane, int32_t count) : head_dim(kv.head_dim) {
  PKV_CHECK(count <= lane.length, "more slots are seen than the lane has");
  const PageLayout layout = page_layout(kv, lane);
  keys.resize(static_cast<size_t>(count) * static_cast<size_t>(head_dim));
  values.resize(keys.size());
  for (int32_t slot = 0; slot < count; ++slot) {
    const int32_t place = slot % layout.slots();
    const std::byte* page = kv.page(lane, slot / layout.slots());
    load_key(layout, page, place, keys.data() + int64_t{slot} * head_dim);
    load_value(layout, page, place, values.data() + int64_t{slot} * head_dim);
  }
}

}  // namespace pkv
