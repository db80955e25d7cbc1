// The arithmetic of entry formats: bytes of an entry, and that the parts of a page's entries neither meet nor leave it.
#include "kernels/entry_format.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <vector>

namespace pkv {
namespace {

constexpr int32_t kPages[] = {256, 2112, 3072, 4096, 65536};

// Elements below a byte, another size for keys than for values, scales of an entry and scales of groups: what no format
// here has yet.
constexpr EntryFormat kMixed{.name = "mixed",
                             .key = {.element_bits = 8, .scale_bytes = 2},
                             .value = {.element_bits = 4, .scale_bytes = 2, .scale_group = 32},
                             .slot_multiple = 8};

// How often each byte of a page belongs to an element or a scale. Elements of half a byte count for both of a byte's.
std::vector<int> uses(const PageLayout& layout, int32_t page_bytes) {
  std::vector<int> halves(static_cast<size_t>(page_bytes) * 2, 0);
  const auto use = [&](int32_t offset, int32_t bits, bool second_half) {
    const int32_t first = offset * 2 + (second_half ? 1 : 0);
    for (int32_t i = first; i < first + bits / 4; ++i) ++halves.at(static_cast<size_t>(i));
  };
  const EntryPart& key = layout.format().key;
  const EntryPart& value = layout.format().value;
  for (int32_t place = 0; place < layout.slots(); ++place) {
    for (int32_t k = 0; k < layout.head_dim(); ++k) {
      use(layout.key_at(place, k), key.element_bits, key.element_bits == 4 && place % 2 == 1);
      use(layout.value_at(place, k), value.element_bits, value.element_bits == 4 && k % 2 == 1);
    }
    use(layout.key_scales_at(place), 8 * key.scales_bytes(layout.head_dim()), false);
    use(layout.value_scales_at(place), 8 * value.scales_bytes(layout.head_dim()), false);
  }
  return halves;
}

TEST(EntryFormat, NumbersAreRowsOfTheTable) {
  EXPECT_STREQ(entry_format(KvDtype::kF16).name, "f16");
  EXPECT_STREQ(entry_format(KvDtype::kF32).name, "f32");
}

TEST(EntryFormat, BytesOfAnEntry) {
  EXPECT_EQ(entry_format(KvDtype::kF16).entry_bytes(64), 256);
  EXPECT_EQ(entry_format(KvDtype::kF32).entry_bytes(64), 512);
  EXPECT_EQ(entry_format(KvDtype::kF16).entry_bytes(33), 132);
  EXPECT_EQ(kMixed.entry_bytes(64), 64 + 2 + 32 + 2 * 2);
  EXPECT_EQ(kMixed.entry_bytes(80), 80 + 2 + 40 + 3 * 2);  // a last group of 16
}

TEST(EntryFormat, OffsetsInAPage) {
  const PageLayout half(KvDtype::kF16, 64, 4096);
  EXPECT_EQ(half.slots(), 16);
  EXPECT_EQ(half.value_offset(), 2048);
  EXPECT_EQ(half.key_at(3, 2), 2 * (2 * 16 + 3));
  EXPECT_EQ(half.value_at(3, 2), 2048 + 2 * (3 * 64 + 2));
  EXPECT_EQ(half.end_offset(), 4096);
  EXPECT_EQ(half.pages_for(0), 0);
  EXPECT_EQ(half.pages_for(16), 1);
  EXPECT_EQ(half.pages_for(17), 2);
  const PageLayout mixed(kMixed, 64, 4096);
  EXPECT_EQ(mixed.slots(), 40);  // 4096 / 102, rounded down to whole eights
  EXPECT_EQ(mixed.value_offset(), 40 * 64);
  EXPECT_EQ(mixed.key_scale_offset(), 40 * 96);
  EXPECT_EQ(mixed.value_scale_offset(), 40 * 98);
  EXPECT_EQ(mixed.end_offset(), 40 * 102);
}

// Every head size of a format that has whole bytes, those that are no multiple of 8 too.
TEST(EntryFormat, PartsOfAPageDoNotMeet) {
  for (const EntryFormat& format : {kEntryFormats.rows[0], kEntryFormats.rows[1], kMixed}) {
    for (int32_t head_dim = 32; head_dim <= 256; head_dim += format.slot_multiple == 1 ? 7 : 8) {
      for (const int32_t page_bytes : kPages) {
        SCOPED_TRACE(testing::Message() << format.name << ", head size " << head_dim << ", pages of " << page_bytes);
        const PageLayout layout(format, head_dim, page_bytes);
        ASSERT_TRUE(is_aligned(layout, page_bytes));
        const std::vector<int> counts = uses(layout, page_bytes);
        ASSERT_LE(*std::max_element(counts.begin(), counts.end()), 1);
        ASSERT_EQ(std::accumulate(counts.begin(), counts.end(), int64_t{0}),
                  int64_t{2} * layout.slots() * layout.entry_bytes());
        ASSERT_GT((layout.slots() + format.slot_multiple) * layout.entry_bytes(), page_bytes);
      }
    }
  }
}

TEST(EntryFormat, SeesWhatIsNotAligned) {
  EntryFormat format = kMixed;
  EXPECT_TRUE(is_aligned(format));
  EXPECT_FALSE(is_aligned(PageLayout(format, 33, 4096), 4096));  // half a byte at the end of a value
  format.slot_multiple = 1;
  format.key.element_bits = 4;
  EXPECT_FALSE(is_aligned(format));  // half a byte at the end of a dimension
}

TEST(EntryFormat, DensestSlots) {
  EXPECT_EQ(densest_slots(64, 4096), 16);
  EXPECT_EQ(densest_slots(80, 3072), 9);
}

}  // namespace
}  // namespace pkv
