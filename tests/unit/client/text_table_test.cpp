// Widths, broken lines and columns of text for terminals.
#include "client/text_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace pkv::client {
namespace {

using testing::ElementsAre;

TEST(DisplayWidth, CountsColumnsAndNotBytes) {
  EXPECT_EQ(display_width(""), 0u);
  EXPECT_EQ(display_width("plain"), 5u);
  EXPECT_EQ(display_width("\xC3\xA9t\xC3\xA9"), 3u);
  EXPECT_EQ(display_width("e\xCC\x81"), 1u);                 // a combining accent
  EXPECT_EQ(display_width("\xE6\x97\xA5\xE6\x9C\xAC"), 4u);  // two wide characters
  EXPECT_EQ(display_width("\xF0\x9F\x8E\x89"), 2u);          // an emoji
  EXPECT_EQ(display_width("\xFF"), 1u);                      // no UTF-8
}

TEST(OneLine, LetsNothingThroughThatSteersATerminal) {
  EXPECT_EQ(one_line("a\tb\x1b[2J\x7F"), "a b [2J ");
  EXPECT_EQ(one_line("\xE2\x80\xAEright"), " right");  // U+202E
  EXPECT_EQ(one_line("\xC2\x9B"
                     "1m"),
            " 1m");  // U+009B, which begins a control sequence too
  EXPECT_EQ(one_line("caf\xC3\xA9"), "caf\xC3\xA9");
  EXPECT_EQ(one_line("\xFF"), " ");
}

TEST(Wrapped, BreaksAtSpacesAndLongWordsWithin) {
  EXPECT_THAT(wrapped("", 10), ElementsAre(""));
  EXPECT_THAT(wrapped("one two three", 7), ElementsAre("one two", "three"));
  EXPECT_THAT(wrapped("one two three", 8), ElementsAre("one two", "three"));
  EXPECT_THAT(wrapped("abcdefgh", 3), ElementsAre("abc", "def", "gh"));
  EXPECT_THAT(wrapped("a bcdefgh", 3), ElementsAre("a", "bcd", "efg", "h"));
  EXPECT_THAT(wrapped("\xE6\x97\xA5\xE6\x9C\xAC", 1), ElementsAre("\xE6\x97\xA5", "\xE6\x9C\xAC"));
}

TEST(TextTable, AlignsColumnsAndBreaksTheLastOne) {
  const TextTable table{
      .rows = {{"name", "size", "what it is"}, {"\xC3\xA9", "12", "a thing of some length, in words"}},
      .right = {false, true},
      .width = 36};
  EXPECT_EQ(text_table(table),
            "name  size  what it is\n"
            "\xC3\xA9       12  a thing of some length,\n"
            "            in words\n");
}

TEST(TextTable, WithoutAWidthNothingIsBroken) {
  EXPECT_EQ(text_table({.rows = {{"a", "b"}, {"c", std::string(200, 'x')}}}),
            "a  b\nc  " + std::string(200, 'x') + "\n");
}

}  // namespace
}  // namespace pkv::client
