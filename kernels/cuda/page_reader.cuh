// How kernels find rows of a step and read entries of a lane. A lane's format is a run-time value; with_format() makes
// it a type once a block, so that the arithmetic of pages is folded into constants.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/gpu.h"
#include "kernels/entry_format.h"

namespace pkv::gpu {

// The span that has this row of the step; nullptr where it is nobody's.
__device__ inline const RowSpan* span_of(const RowSpans& spans, int32_t row) {
  int32_t low = 0,
          high = spans.count;  // spans before `low` begin at the row or before it, those from `high` on after it
  while (low < high) {
    const int32_t middle = (low + high) / 2;
    if (spans.data[middle].first_row <= row) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  while (low > 0 && spans.data[low - 1].rows == 0) --low;
  if (low == 0) return nullptr;
  const RowSpan* span = spans.data + (low - 1);
  return row < span->first_row + span->rows ? span : nullptr;
}

// How one number is stored.
template <ElementType>
struct Element;
template <>
struct Element<ElementType::kF16> {
  using Stored = uint16_t;
  __device__ static float load(Stored stored) { return half_to_float(stored); }
  __device__ static Stored store(float value) { return float_to_half(value); }
};
template <>
struct Element<ElementType::kF32> {
  using Stored = float;
  __device__ static float load(Stored stored) { return stored; }
  __device__ static Stored store(float value) { return value; }
};

template <>
struct Element<ElementType::kBF16> {
  using Stored = uint16_t;
  __device__ static float load(Stored stored) { return bfloat16_to_float(stored); }
  __device__ static Stored store(float value) { return float_to_bfloat16(value); }
};

// The numbers of a key or of a value, as they are stored: number i lies `stride` elements after number i - 1.
template <typename Stored>
struct StoredNumbers {
  Stored* first = nullptr;
  int32_t stride = 0;

  __device__ Stored& stored(int32_t i) const { return first[static_cast<int64_t>(i) * stride]; }
};

// And as floats.
template <typename Element>
struct Numbers : StoredNumbers<typename Element::Stored> {
  __device__ float operator[](int32_t i) const { return Element::load(this->stored(i)); }
  __device__ void set(int32_t i, float value) const { this->stored(i) = Element::store(value); }
  // Those from number i on.
  __device__ Numbers from(int32_t i) const { return {{&this->stored(i), this->stride}}; }
};

// A lane's entries.
template <KvDtype kFormat>
class LaneEntries {
 public:
  using Key = Element<entry_format(kFormat).key.element>;
  using Value = Element<entry_format(kFormat).value.element>;

  __device__ LaneEntries(const KvView& kv, const Lane& lane)
      : kv_(kv), first_page_(lane.first_page), layout_(kFormat, kv.head_dim, kv.page_bytes) {}

  __device__ Numbers<Key> key(int32_t slot) const {
    return {{reinterpret_cast<typename Key::Stored*>(page(slot) + layout_.key_at(slot % layout_.slots(), 0)),
             layout_.slots()}};
  }
  __device__ Numbers<Value> value(int32_t slot) const {
    return {{reinterpret_cast<typename Value::Stored*>(page(slot) + layout_.value_at(slot % layout_.slots(), 0)), 1}};
  }
  // One number: the original position.
  __device__ StoredNumbers<int32_t> position(int32_t slot) const {
    return {kv_.positions + static_cast<int64_t>(page_id(slot)) * kv_.position_stride + slot % layout_.slots(), 1};
  }

 private:
  __device__ int32_t page_id(int32_t slot) const { return kv_.page_ids[first_page_ + slot / layout_.slots()]; }
  __device__ std::byte* page(int32_t slot) const {
    return kv_.pool + static_cast<int64_t>(page_id(slot)) * kv_.page_bytes;
  }

  const KvView& kv_;
  int32_t first_page_;
  PageLayout layout_;
};

// visit(LaneEntries) of the lane.
template <typename Visit>
__device__ void with_entries(const KvView& kv, const Lane& lane, const Visit& visit) {
  switch (lane.dtype) {
    case KvDtype::kF16:
      return visit(LaneEntries<KvDtype::kF16>(kv, lane));
    case KvDtype::kF32:
      return visit(LaneEntries<KvDtype::kF32>(kv, lane));
    case KvDtype::kBF16:
      return visit(LaneEntries<KvDtype::kBF16>(kv, lane));
    case KvDtype::kK8V4:
      PKV_DEVICE_CHECK(false, "entries of codes have no kernels here yet");
  }
}

}  // namespace pkv::gpu
