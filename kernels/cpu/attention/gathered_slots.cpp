#include "kernels/cpu/attention/gathered_slots.h"

#include <cstring>

#include "kernels/check.h"

namespace pkv {
namespace {

constexpr int32_t kFirstPage = 0;

// Elements of one size that lie [rows][slots of the page].
template <typename Element>
void copy_column(const std::byte* from, int32_t from_slots, std::byte* to, int32_t to_slots, int32_t rows) {
  for (int64_t row = 0; row < rows; ++row) {
    std::memcpy(to + row * to_slots * static_cast<int64_t>(sizeof(Element)),
                from + row * from_slots * static_cast<int64_t>(sizeof(Element)), sizeof(Element));
  }
}

void copy_column(int32_t bytes, const std::byte* from, int32_t from_slots, std::byte* to, int32_t to_slots,
                 int32_t rows) {
  switch (bytes) {
    case 1:
      return copy_column<uint8_t>(from, from_slots, to, to_slots, rows);
    case 2:
      return copy_column<uint16_t>(from, from_slots, to, to_slots, rows);
    default:
      return copy_column<uint32_t>(from, from_slots, to, to_slots, rows);
  }
}

}  // namespace

LanePages gather_slots(const LanePages& pages, std::span<const int32_t> slots, std::byte* room) {
  PKV_CHECK(slots.size() <= static_cast<size_t>(kGatheredSlots), "more slots than there is room for");
  const EntryFormat format = entry_format(pages.format);
  const int32_t d = pages.head_dim;
  const PageLayout layout(format, d, kGatheredSlots * format.entry_bytes(d));
  const int32_t key_bytes = format.key.element_bits / 8, value_bytes = format.value.bytes(d);
  const int32_t key_scales = format.key.scale_bytes == 0 ? 0 : format.key.scale_of(d - 1) + 1;
  const int32_t value_scales = format.value.scale_bytes == 0 ? 0 : format.value.scale_of(d - 1) + 1;
  for (size_t i = 0; i < slots.size(); ++i) {
    const int32_t page = slots[i] / pages.slots, place = slots[i] % pages.slots, to = static_cast<int32_t>(i);
    const std::byte* from = pages.pool + pages.page_ids[page] * pages.page_bytes;
    copy_column(key_bytes, from + int64_t{place} * key_bytes, pages.slots, room + layout.key_at(to, 0), kGatheredSlots,
                d);
    std::memcpy(room + layout.value_at(to, 0), from + pages.value_offset + int64_t{place} * value_bytes,
                static_cast<size_t>(value_bytes));
    copy_column(format.key.scale_bytes, from + pages.key_scale_offset + int64_t{place} * format.key.scale_bytes,
                pages.slots, room + layout.key_scale_at(to, 0), kGatheredSlots, key_scales);
    copy_column(format.value.scale_bytes, from + pages.value_scale_offset + int64_t{place} * format.value.scale_bytes,
                pages.slots, room + layout.value_scale_at(to, 0), kGatheredSlots, value_scales);
  }
  return {.pool = room,
          .page_ids = &kFirstPage,
          .page_bytes = layout.end_offset(),
          .value_offset = layout.value_offset(),
          .key_scale_offset = layout.key_scale_offset(),
          .value_scale_offset = layout.value_scale_offset(),
          .slots = kGatheredSlots,
          .head_dim = d,
          .format = pages.format};
}

}  // namespace pkv
