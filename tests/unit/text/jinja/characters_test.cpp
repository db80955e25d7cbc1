// Characters as Python sees them.
#include "server/text/jinja/characters.h"

#include <gtest/gtest.h>

namespace pkv::jinja {
namespace {

TEST(JinjaCharacters, StripAsPython) {
  EXPECT_EQ(strip_begin(strip_end(" \t\n\u00A0\u3000\x1C"
                                  "a b\u2028\u0085\x1F")),
            "a b");
  EXPECT_EQ(strip_begin(strip_end("\u200Ba\u180E")), "\u200Ba\u180E");  // neither is white space
  EXPECT_EQ(strip_begin(strip_end(" \n ")), "");
}

TEST(JinjaCharacters, BadUtf8IsTakenByteByByte) {
  EXPECT_EQ(count_characters("a\xFF\xC3"), 3u);
  EXPECT_EQ(count_characters("\xE6\xBC"), 2u);
  EXPECT_EQ(count_characters("\xC0\x80"), 2u);
  EXPECT_EQ(last_character("\x80\x80\x80\x80\x80").bytes, 1u);
  EXPECT_EQ(last_character("a漢").code, 0x6F22u);
  EXPECT_EQ(next_character("\U0001F600x").code, 0x1F600u);
  EXPECT_EQ(character_offset("é漢x", 2), 5u);
  EXPECT_EQ(character_offset("é", 9), 2u);
}

TEST(JinjaCharacters, CaseAndPrint) {
  const auto upper = [](uint32_t code) {
    std::string out;
    append_upper(code, out);
    return out;
  };
  EXPECT_EQ(upper(U'ß'), "SS");
  EXPECT_EQ(upper(U'я'), "Я");
  EXPECT_EQ(upper(U'1'), "1");
  EXPECT_EQ(upper(U'ÿ'), "Ÿ");
  EXPECT_TRUE(is_cased(U'a'));
  EXPECT_FALSE(is_cased(U'漢'));
  EXPECT_TRUE(is_printable(U' '));
  EXPECT_FALSE(is_printable(0xA0));
  EXPECT_FALSE(is_printable(0x200B));
}

}  // namespace
}  // namespace pkv::jinja
