// Where a lane's keys and values lie, and small arithmetic, for kernels that are compiled once per instruction set
// (vec.h).
#pragma once

#include <cstdint>

#include "kernels/cpu/attention/attention_kernels.h"
#include "kernels/cpu/vec.h"

namespace pkv {
namespace {

constexpr int32_t min_int(int32_t a, int32_t b) { return a < b ? a : b; }
constexpr int32_t round_up(int32_t value, int32_t unit) { return (value + unit - 1) / unit * unit; }

template <typename T>
const T* page_part(const LanePages& pages, int32_t page, int32_t offset) {
  return reinterpret_cast<const T*>(pages.pool + pages.page_ids[page] * pages.page_bytes + offset);
}

template <typename T>
const T* page_keys(const LanePages& pages, int32_t page) {
  return page_part<T>(pages, page, 0);
}

template <typename T>
const T* page_values(const LanePages& pages, int32_t page) {
  return page_part<T>(pages, page, pages.value_offset);
}

// f16 scales of a page's slots: of their keys, and of their values' dimensions around `dim`.
inline const uint16_t* key_scales(const LanePages& pages, int32_t page) {
  return page_part<uint16_t>(pages, page, pages.key_scale_offset);
}
inline const uint16_t* value_scales(const LanePages& pages, int32_t page, int32_t dim) {
  return page_part<uint16_t>(pages, page, pages.value_scale_offset) + dim / kValueScaleGroup * pages.slots;
}

// Where a vector of slots' keys lies; of codes also what they are multiplied by.
template <typename T>
struct KeyColumns {
  using V = Vec<float>;

  const T* keys = nullptr;  // of dimension 0
  int64_t slots = 0;
  int32_t width = 0;  // of them in the vector
  V::Type scale;      // codes only

  KeyColumns(const LanePages& pages, int32_t page, int32_t place, int32_t count)
      : keys(page_keys<T>(pages, page) + place), slots(pages.slots), width(count) {
    if constexpr (kIsCode<T>) scale = V::load_first(key_scales(pages, page) + place, count);
  }
  // kWidth of them, or the first `width`; the rest is undefined.
  V::Type load(int32_t dim) const { return scaled(V::load(keys + dim * slots)); }
  V::Type load_first(int32_t dim) const { return scaled(V::load_first(keys + dim * slots, width)); }

 private:
  V::Type scaled(V::Type numbers) const {
    if constexpr (kIsCode<T>) numbers = numbers * scale;
    return numbers;
  }
};

// The keys of slots [first, first + count) by vectors that lie in one page each: body(keys, column), columns counted
// from `first`.
template <typename T, typename Body>
void for_each_columns(const LanePages& pages, int32_t first, int32_t count, const Body& body) {
  int32_t width = 0;
  for (int32_t column = 0; column < count; column += width) {
    const int32_t page = (first + column) / pages.slots;
    const int32_t place = (first + column) - page * pages.slots;
    width = min_int(min_int(Vec<float>::kWidth, pages.slots - place), count - column);
    body(KeyColumns<T>(pages, page, place, width), column);
  }
}

// Makes mixed values (kernels/entry_codes.h), or sums of them, values: the Walsh-Hadamard transform of every group.
inline void unmix(float* sums, int32_t head_dim) {
  for (int32_t first = 0; first < head_dim; first += kValueScaleGroup) {
    const int32_t count = min_int(kValueScaleGroup, head_dim - first);
    float* group = sums + first;
    for (int32_t reach = 1; reach < (count & -count); reach *= 2) {
      for (int32_t i = 0; i < count; i += 2 * reach) {
        for (int32_t j = i; j < i + reach; ++j) {
          const float a = group[j], b = group[j + reach];
          group[j] = a + b;
          group[j + reach] = a - b;
        }
      }
    }
  }
}

// The value of one slot.
template <typename T>
struct SlotValue {
  using V = Vec<float>;

  const LanePages& pages;
  int32_t page, place;
  const T* numbers;

  SlotValue(const LanePages& lane, int32_t slot)
      : pages(lane),
        page(slot / lane.slots),
        place(slot - page * lane.slots),
        numbers(page_values<T>(lane, page) + static_cast<int64_t>(place) * (lane.head_dim / kNumbersIn<T>)) {}
  // The `dims` dimensions from `dim` on, at most kWidth. Dimensions ascend from call to call.
  V::Type load(int32_t dim, int32_t dims) {
    const T* from = numbers + dim / kNumbersIn<T>;
    if constexpr (kIsCode<T>) {
      if (dim % kValueScaleGroup == 0) load_group(dim);
      return V::load(group + dim % kValueScaleGroup);
    } else {
      return dims == V::kWidth ? V::load(from) : V::load_first(from, dims);
    }
  }

 private:
  void load_group(int32_t first) {
    const int32_t count = min_int(kValueScaleGroup, pages.head_dim - first);
    const V::Type scale = V::broadcast(float_of(value_scales(pages, page, first)[place]));
    for (int32_t i = 0; i < count; i += V::kWidth) {
      V::store(group + i, V::load_first(numbers + (first + i) / kNumbersIn<T>, min_int(V::kWidth, count - i)) * scale);
    }
    unmix(group, count);
  }

  float group[kIsCode<T> ? kValueScaleGroup : 1];  // the values around the last dimension; codes only
};

}  // namespace
}  // namespace pkv
