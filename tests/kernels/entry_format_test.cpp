// The arithmetic of entry formats: bytes of an entry, and that the parts of a page's entries neither meet nor leave it.
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <vector>

#include "kernels/entry_codes.h"

namespace pkv {
namespace {

constexpr int32_t kPages[] = {256, 2112, 3072, 4096, 65536};

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
    for (int32_t k = 0; key.scale_bytes > 0 && k < layout.head_dim(); ++k) {
      if (k == 0 || key.scale_of(k) != key.scale_of(k - 1))
        use(layout.key_scale_at(place, k), 8 * key.scale_bytes, false);
    }
    for (int32_t k = 0; value.scale_bytes > 0 && k < layout.head_dim(); ++k) {
      if (k == 0 || value.scale_of(k) != value.scale_of(k - 1)) {
        use(layout.value_scale_at(place, k), 8 * value.scale_bytes, false);
      }
    }
  }
  return halves;
}

TEST(EntryFormat, NumbersAreRowsOfTheTable) {
  EXPECT_STREQ(entry_format(KvDtype::kF16).name, "f16");
  EXPECT_STREQ(entry_format(KvDtype::kF32).name, "f32");
  EXPECT_STREQ(entry_format(KvDtype::kBF16).name, "bf16");
  EXPECT_STREQ(entry_format(KvDtype::kK8V4).name, "k8v4");
}

TEST(EntryFormat, APromptIsReadWithoutScales) {
  EXPECT_EQ(prompt_format(KvDtype::kK8V4), KvDtype::kF16);
  for (const EntryFormat& format : kEntryFormats.rows) {
    EXPECT_EQ(entry_format(format.prompt).key.scale_bytes, 0) << format.name;
    EXPECT_GE(entry_format(format.prompt).entry_bytes(64), format.entry_bytes(64)) << format.name;
    if (format.key.scale_bytes == 0) EXPECT_EQ(format.prompt, format.id) << format.name;
  }
}

TEST(EntryFormat, BytesOfAnEntry) {
  EXPECT_EQ(entry_format(KvDtype::kF16).entry_bytes(64), 256);
  EXPECT_EQ(entry_format(KvDtype::kF32).entry_bytes(64), 512);
  EXPECT_EQ(entry_format(KvDtype::kF16).entry_bytes(33), 132);
  EXPECT_EQ(entry_format(KvDtype::kBF16).entry_bytes(64), 256);
  constexpr EntryFormat kCodes = entry_format(KvDtype::kK8V4);
  EXPECT_EQ(kCodes.entry_bytes(64), 64 + 2 + 32 + 2 * 2);
  EXPECT_EQ(kCodes.entry_bytes(80), 80 + 2 + 40 + 3 * 2);  // a last group of 16
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
  const PageLayout codes(KvDtype::kK8V4, 64, 4096);
  EXPECT_EQ(codes.slots(), 40);  // 4096 / 102, rounded down to whole eights
  EXPECT_EQ(codes.value_offset(), 40 * 64);
  EXPECT_EQ(codes.key_scale_offset(), 40 * 96);
  EXPECT_EQ(codes.value_scale_offset(), 40 * 98);
  EXPECT_EQ(codes.end_offset(), 40 * 102);
}

// Every head size of a format that has whole bytes, those that are no multiple of 8 too.
TEST(EntryFormat, PartsOfAPageDoNotMeet) {
  for (const EntryFormat& format : kEntryFormats.rows) {
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
        ASSERT_TRUE(layout.slots() % format.slot_multiple == 0 || layout.slots() < format.slot_multiple);
      }
    }
  }
}

TEST(EntryFormat, SeesWhatIsNotAligned) {
  EntryFormat format = entry_format(KvDtype::kK8V4);
  EXPECT_TRUE(is_aligned(format));
  EXPECT_FALSE(is_aligned(PageLayout(format, 33, 4096), 4096));  // half a byte at the end of a value
  format.slot_multiple = 1;
  format.key.element_bits = 4;
  EXPECT_FALSE(is_aligned(format));  // half a byte at the end of a dimension
}

TEST(EntryCodes, OfKeys) {
  NumberRange range;
  for (const float x : {0.5f, -2.54f, 1.0f}) range.add(x);
  EXPECT_FLOAT_EQ(scale_for(ElementType::kI8, range), 0.02f);
  const float inverse = inverse_of(0.02f);
  EXPECT_EQ(code_of(ElementType::kI8, -2.54f * inverse), -127);
  EXPECT_EQ(code_of(ElementType::kI8, 0.05f * inverse), 2);  // 2.5: to even
  EXPECT_EQ(code_of(ElementType::kI8, 400.0f), 127);
}

TEST(EntryCodes, OfValuesTheSideOfTheLargestHasACodeMore) {
  for (const float sign : {1.0f, -1.0f}) {
    NumberRange range;
    for (const float x : {4.0f, -3.9f, 0.3f}) range.add(sign * x);
    const float scale = scale_for(ElementType::kI4, range);
    EXPECT_EQ(scale, sign * -0.5f);
    EXPECT_EQ(code_of(ElementType::kI4, sign * 4.0f * inverse_of(scale)), -8);
    EXPECT_EQ(code_of(ElementType::kI4, sign * -3.9f * inverse_of(scale)), 7);  // 7.8: there is no 8
    EXPECT_EQ(code_of(ElementType::kI4, sign * 0.3f * inverse_of(scale)), -1);
  }
}

TEST(EntryCodes, OfNothingButZeros) {
  EXPECT_EQ(scale_for(ElementType::kI8, {}), 0.0f);
  EXPECT_EQ(inverse_of(0.0f), 0.0f);
  EXPECT_EQ(code_of(ElementType::kI4, 0.0f), 0);
}

TEST(EntryFormat, DensestSlots) {
  EXPECT_EQ(densest_slots(64, 4096), 40);
  EXPECT_EQ(densest_slots(80, 3072), 24);
}

}  // namespace
}  // namespace pkv
