// The formats that cache entries can have, one table row each, and where the parts of an entry lie in a page. Whoever
// counts bytes of entries or looks for one asks here. Plain data and constexpr: host and device code share it.
//
// A page belongs to one lane and holds `slots` entries, part after part:
//
//   keys          [head_dim][slots]   dimension-major: one dimension of all the page's slots is contiguous
//   values        [slots][head_dim]   slot-major; of two numbers in a byte the first is in the low half
//   key scales    [scales of a key][slots]       where the format has scales (entry_codes.h)
//   value scales  [scales of a value][slots]
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/kv_view.h"

namespace pkv {

// How one number of a key or a value is written: as it is, or as a code that a scale multiplies.
enum class ElementType : uint8_t { kF16, kF32, kBF16, kI8, kI4 };

// The keys of a format, or its values.
struct EntryPart {
  ElementType element = ElementType::kF32;
  int32_t element_bits = 0;
  int32_t scale_bytes = 0;  // of one scale; 0: the elements have none
  int32_t scale_group = 0;  // elements that share a scale; 0: all of an entry's

  constexpr int32_t bytes(int32_t head_dim) const { return head_dim * element_bits / 8; }
  constexpr int32_t scale_of(int32_t dimension) const { return scale_group == 0 ? 0 : dimension / scale_group; }
  constexpr int32_t scales_bytes(int32_t head_dim) const { return (scale_of(head_dim - 1) + 1) * scale_bytes; }
};

struct EntryFormat {
  KvDtype id = KvDtype::kF32;
  const char* name = "";  // as the configuration has it
  // Of the entries while their layer of a prompt is being read; what is kept of them is converted when it is cut.
  KvDtype prompt = KvDtype::kF32;
  EntryPart key, value;
  int32_t slot_multiple = 1;  // slots of a page are a multiple of this, where a page has as many

  constexpr bool has_codes() const { return key.scale_bytes > 0 || value.scale_bytes > 0; }
  // Of one entry: key and value with their scales.
  constexpr int32_t entry_bytes(int32_t head_dim) const {
    return key.bytes(head_dim) + value.bytes(head_dim) + key.scales_bytes(head_dim) + value.scales_bytes(head_dim);
  }
};

struct EntryFormatTable {
  EntryFormat rows[4];
};

// A function, for device code cannot reach a table in host memory.
constexpr EntryFormatTable entry_format_table() {
  constexpr EntryPart kHalf{.element = ElementType::kF16, .element_bits = 16};
  constexpr EntryPart kFloat{.element = ElementType::kF32, .element_bits = 32};
  constexpr EntryPart kBrain{.element = ElementType::kBF16, .element_bits = 16};
  constexpr EntryPart kByte{.element = ElementType::kI8, .element_bits = 8, .scale_bytes = 2};
  constexpr EntryPart kNibble{.element = ElementType::kI4, .element_bits = 4, .scale_bytes = 2, .scale_group = 32};
  return {{{.id = KvDtype::kF16, .name = "f16", .prompt = KvDtype::kF16, .key = kHalf, .value = kHalf},
           {.id = KvDtype::kF32, .name = "f32", .prompt = KvDtype::kF32, .key = kFloat, .value = kFloat},
           {.id = KvDtype::kBF16, .name = "bf16", .prompt = KvDtype::kBF16, .key = kBrain, .value = kBrain},
           {.id = KvDtype::kK8V4,
            .name = "k8v4",
            .prompt = KvDtype::kF16,
            .key = kByte,
            .value = kNibble,
            .slot_multiple = 8}}};
}

constexpr EntryFormat entry_format(KvDtype id) { return entry_format_table().rows[static_cast<int32_t>(id)]; }

// The format in which the prompt of a sequence is read whose entries are kept in `kept`.
constexpr KvDtype prompt_format(KvDtype kept) { return entry_format(kept).prompt; }

// All of them, for host code that goes through them.
inline constexpr EntryFormatTable kEntryFormats = entry_format_table();

// How one page of a lane is laid out. Offsets are bytes from the page's start.
class PageLayout {
 public:
  constexpr PageLayout(const EntryFormat& format, int32_t head_dim, int32_t page_bytes)
      : format_(format), head_dim_(head_dim), slots_(page_bytes / format.entry_bytes(head_dim)) {
    if (slots_ >= format.slot_multiple) {
      slots_ -= slots_ % format.slot_multiple;
    } else {  // kernels read scales by eights; what they read beyond the last one lies in the page, too
      slots_ = (page_bytes - 8 * format.value.scale_bytes) / format.entry_bytes(head_dim);
    }
  }
  constexpr PageLayout(KvDtype format, int32_t head_dim, int32_t page_bytes)
      : PageLayout(entry_format(format), head_dim, page_bytes) {}

  constexpr const EntryFormat& format() const { return format_; }
  constexpr int32_t head_dim() const { return head_dim_; }
  constexpr int32_t slots() const { return slots_; }
  constexpr int32_t pages_for(int32_t entries) const { return (entries + slots_ - 1) / slots_; }
  constexpr int32_t entry_bytes() const { return format_.entry_bytes(head_dim_); }

  // Where the values begin, and the scales.
  constexpr int32_t value_offset() const { return slots_ * format_.key.bytes(head_dim_); }
  constexpr int32_t key_scale_offset() const { return value_offset() + slots_ * format_.value.bytes(head_dim_); }
  constexpr int32_t value_scale_offset() const {
    return key_scale_offset() + slots_ * format_.key.scales_bytes(head_dim_);
  }
  constexpr int32_t end_offset() const { return value_scale_offset() + slots_ * format_.value.scales_bytes(head_dim_); }

  // The first byte with bits of one element of the entry at `place`, and of that element's scale.
  constexpr int32_t key_at(int32_t place, int32_t dimension) const {
    return (dimension * slots_ + place) * format_.key.element_bits / 8;
  }
  constexpr int32_t value_at(int32_t place, int32_t dimension) const {
    return value_offset() + place * format_.value.bytes(head_dim_) + dimension * format_.value.element_bits / 8;
  }
  constexpr int32_t key_scale_at(int32_t place, int32_t dimension) const {
    return key_scale_offset() + (format_.key.scale_of(dimension) * slots_ + place) * format_.key.scale_bytes;
  }
  constexpr int32_t value_scale_at(int32_t place, int32_t dimension) const {
    return value_scale_offset() + (format_.value.scale_of(dimension) * slots_ + place) * format_.value.scale_bytes;
  }

 private:
  EntryFormat format_;
  int32_t head_dim_ = 0;
  int32_t slots_ = 0;
};

// How a lane's pages are laid out.
constexpr PageLayout page_layout(const KvView& kv, const Lane& lane) {
  return {lane.dtype, kv.head_dim, kv.page_bytes};
}

// Slots of a page in the format that has most of them.
constexpr int32_t densest_slots(int32_t head_dim, int32_t page_bytes) {
  int32_t slots = 0;
  for (const EntryFormat& format : kEntryFormats.rows) {
    slots = std::max(slots, PageLayout(format, head_dim, page_bytes).slots());
  }
  return slots;
}

// What kernels rely on in a page (which itself begins on a cache line): rows of elements begin at whole bytes, elements
// and scales at multiples of their own size, and nothing lies beyond the page.
constexpr bool is_aligned(const PageLayout& layout, int32_t page_bytes) {
  const auto begins_well = [](int32_t offset, int32_t unit) { return unit <= 1 || offset % unit == 0; };
  const EntryPart& key = layout.format().key;
  const EntryPart& value = layout.format().value;
  return layout.slots() * key.element_bits % 8 == 0 && layout.head_dim() * value.element_bits % 8 == 0 &&
         begins_well(layout.value_offset(), value.element_bits / 8) &&
         begins_well(layout.key_scale_offset(), key.scale_bytes) &&
         begins_well(layout.value_scale_offset(), value.scale_bytes) && layout.end_offset() <= page_bytes;
}

// The same of a format at the head sizes that kernels take (multiples of 8), in pages of several sizes.
constexpr bool is_aligned(const EntryFormat& format) {
  for (int32_t head_dim = 8; head_dim <= 256; head_dim += 8) {
    for (const int32_t page_bytes : {64 * 33, 3072, 4096, 1 << 16}) {
      if (!is_aligned(PageLayout(format, head_dim, page_bytes), page_bytes)) return false;
    }
  }
  return true;
}

constexpr bool is_sound(const EntryFormatTable& table) {
  for (const EntryFormat& format : table.rows) {
    if (&format - table.rows != static_cast<int32_t>(format.id) || !is_aligned(format)) return false;
  }
  return true;
}
static_assert(is_sound(kEntryFormats), "a format's row lies in another place than its number says, or is not aligned");

}  // namespace pkv
