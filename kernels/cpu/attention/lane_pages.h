// Where a lane's keys and values lie, and small arithmetic, for kernels that are compiled once per instruction set
// (vec.h).
#pragma once

#include <cstdint>

#include "kernels/cpu/attention/attention_kernels.h"

namespace pkv {
namespace {

constexpr int32_t min_int(int32_t a, int32_t b) { return a < b ? a : b; }
constexpr int32_t round_up(int32_t value, int32_t unit) { return (value + unit - 1) / unit * unit; }

template <typename T>
const T* page_keys(const LanePages& pages, int32_t page) {
  return reinterpret_cast<const T*>(pages.pool + pages.page_ids[page] * pages.page_bytes);
}

template <typename T>
const T* page_values(const LanePages& pages, int32_t page) {
  return reinterpret_cast<const T*>(pages.pool + pages.page_ids[page] * pages.page_bytes + pages.value_offset);
}

// The value of one slot.
template <typename T>
const T* slot_value(const LanePages& pages, int32_t slot) {
  const int32_t page = slot / pages.slots;
  return page_values<T>(pages, page) + static_cast<int64_t>(slot - page * pages.slots) * pages.head_dim;
}

}  // namespace
}  // namespace pkv
