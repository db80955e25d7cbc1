// How kernels find rows of a step and read entries of a lane. A lane's format is a run-time value; with_entries() makes
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

// How one number is stored: as it is, or as its code.
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
template <>
struct Element<ElementType::kI8> {
  using Stored = int8_t;
  __device__ static float load(Stored stored) { return static_cast<float>(stored); }
  __device__ static Stored store(float value) { return static_cast<Stored>(value); }
};
template <>
struct Element<ElementType::kI4> {
  using Stored = uint8_t;  // two of them, the first in the low half
};

// The pieces of a key or of a value, or its scales, as they are stored: piece i lies `stride` after piece i - 1.
template <typename Stored>
struct StoredPieces {
  Stored* first = nullptr;
  int32_t stride = 0;

  __device__ Stored& stored(int32_t i) const { return first[static_cast<int64_t>(i) * stride]; }
  // Those from piece i on.
  __device__ StoredPieces from(int32_t i) const { return {&stored(i), stride}; }
};

// And as floats. Of codes: the mixed numbers (kernels/entry_codes.h), scale and all.
template <typename Element>
struct Numbers : StoredPieces<typename Element::Stored> {
  __device__ float operator[](int32_t i) const { return Element::load(this->stored(i)); }
  __device__ void set(int32_t i, float value) const { this->stored(i) = Element::store(value); }
};
struct CodedKey : StoredPieces<int8_t> {
  float scale = 0;

  __device__ float operator[](int32_t i) const { return scale * Element<ElementType::kI8>::load(stored(i)); }
};
struct CodedValue : StoredPieces<uint8_t> {
  StoredPieces<uint16_t> scales;  // of kCodesOfScale codes each

  static constexpr int32_t kCodesOfScale = kWarp;
  static_assert(kCodesOfScale == entry_format(KvDtype::kK8V4).value.scale_group);

  __device__ float operator[](int32_t i) const {
    const int32_t half = stored(i / 2) >> i % 2 * 4 & 15;
    return half_to_float(scales.stored(i / kCodesOfScale)) * static_cast<float>((half ^ 8) - 8);
  }
};

// Whether a lane's entries are codes with scales, whose keys want mixed queries and whose values come mixed.
__device__ inline bool has_codes(const Lane& lane) { return lane.dtype == KvDtype::kK8V4; }

// A lane's entries.
template <KvDtype kFormat>
class LaneEntries {
  static constexpr EntryPart kKey = entry_format(kFormat).key, kValue = entry_format(kFormat).value;

 public:
  static constexpr bool kCodes = entry_format(kFormat).has_codes();
  static constexpr int32_t kValuesOfPiece = kValue.element_bits < 8 ? 8 / kValue.element_bits : 1;
  using Key = Element<kKey.element>;
  using Value = Element<kValue.element>;

  __device__ LaneEntries(const KvView& kv, const Lane& lane)
      : kv_(kv), first_page_(lane.first_page), layout_(kFormat, kv.head_dim, kv.page_bytes) {}

  __device__ int32_t slots_of_page() const { return layout_.slots(); }
  __device__ auto key(int32_t slot) const {
    if constexpr (kCodes) {
      return CodedKey{stored_key(slot), half_to_float(key_scale(slot).stored(0))};
    } else {
      return Numbers<Key>{stored_key(slot)};
    }
  }
  __device__ auto value(int32_t slot) const {
    if constexpr (kCodes) {
      return CodedValue{stored_value(slot), value_scales(slot)};
    } else {
      return Numbers<Value>{stored_value(slot)};
    }
  }

  __device__ StoredPieces<typename Key::Stored> stored_key(int32_t slot) const {
    return {at<typename Key::Stored>(slot, layout_.key_at(place(slot), 0)), layout_.slots()};
  }
  __device__ StoredPieces<typename Value::Stored> stored_value(int32_t slot) const {
    return {at<typename Value::Stored>(slot, layout_.value_at(place(slot), 0)), 1};
  }
  // One, and one for each group of a value's codes; of formats that have some.
  __device__ StoredPieces<uint16_t> key_scale(int32_t slot) const {
    return {at<uint16_t>(slot, layout_.key_scale_at(place(slot), 0)), 1};
  }
  __device__ StoredPieces<uint16_t> value_scales(int32_t slot) const {
    return {at<uint16_t>(slot, layout_.value_scale_at(place(slot), 0)), layout_.slots()};
  }
  // One number: the original position.
  __device__ StoredPieces<int32_t> position(int32_t slot) const {
    return {kv_.positions + static_cast<int64_t>(page_id(slot)) * kv_.position_stride + place(slot), 1};
  }

 private:
  __device__ int32_t place(int32_t slot) const { return slot % layout_.slots(); }
  __device__ int32_t page_id(int32_t slot) const { return kv_.page_ids[first_page_ + slot / layout_.slots()]; }
  template <typename T>
  __device__ T* at(int32_t slot, int32_t offset) const {
    return reinterpret_cast<T*>(kv_.pool + static_cast<int64_t>(page_id(slot)) * kv_.page_bytes + offset);
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
      return visit(LaneEntries<KvDtype::kK8V4>(kv, lane));
  }
}

}  // namespace pkv::gpu
