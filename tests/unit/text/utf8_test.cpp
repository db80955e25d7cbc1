// UTF-8 checking against a decoder written from the definition, for every sequence of up to two bytes and many longer
// ones.
#include "server/text/utf8.h"

#include <gtest/gtest.h>

#include <random>

#include "server/text/token_trie.h"

namespace pkv {
namespace {

// RFC 3629 read literally: decode by the lead byte's length, then refuse what is too short for its value.
bool valid_by_definition(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const auto lead = static_cast<uint8_t>(text[i]);
    const int extra = lead < 0x80 ? 0 : (lead >> 5) == 6 ? 1 : (lead >> 4) == 14 ? 2 : (lead >> 3) == 30 ? 3 : -1;
    if (extra < 0 || i + extra >= text.size()) return false;
    uint32_t code = extra == 0 ? lead : lead & (0x3Fu >> extra);
    for (int k = 1; k <= extra; ++k) {
      const auto byte = static_cast<uint8_t>(text[i + k]);
      if ((byte & 0xC0) != 0x80) return false;
      code = code << 6 | (byte & 0x3Fu);
    }
    constexpr uint32_t kLeast[] = {0, 0x80, 0x800, 0x10000};
    if (code < kLeast[extra] || code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF)) return false;
    i += extra + 1;
  }
  return true;
}

TEST(Utf8, ValidityAgreesWithTheDefinition) {
  for (int first = 0; first < 256; ++first) {
    for (int second = 0; second < 256; ++second) {
      for (const std::string tail : {"", "\x80", "\xBF\x80", "\x80\x80", "a",
                                     "\x80"
                                     "a"}) {
        const std::string text = std::string{static_cast<char>(first), static_cast<char>(second)} + tail;
        ASSERT_EQ(!find_invalid_utf8(text).has_value(), valid_by_definition(text)) << first << " " << second;
      }
    }
  }
}

TEST(Utf8, OffsetOfTheFirstFault) {
  EXPECT_EQ(find_invalid_utf8(""), std::nullopt);
  EXPECT_EQ(find_invalid_utf8(std::string_view("a\0b", 3)), std::nullopt);
  EXPECT_EQ(find_invalid_utf8("\xC3\xA9\xC3"), 2u);      // cut
  EXPECT_EQ(find_invalid_utf8("ab\xED\xA0\x80"), 2u);    // a surrogate
  EXPECT_EQ(find_invalid_utf8("\xF4\x90\x80\x80"), 0u);  // above U+10FFFF
  EXPECT_EQ(find_invalid_utf8("\xC0\x80"), 0u);          // overlong
}

// Unicode 15, section 3.9, table 3-8 and D93b: one U+FFFD for each maximal part.
TEST(Utf8, ReplacesMaximalParts) {
  std::string out;
  EXPECT_EQ(append_valid_utf8("a\xF1\x80\x80\xE1\x80\xC2"
                              "b\x80"
                              "c\x80\xBF"
                              "d",
                              out),
            "");
  EXPECT_EQ(out, "a\uFFFD\uFFFD\uFFFDb\uFFFDc\uFFFD\uFFFDd");
  out.clear();
  EXPECT_EQ(append_valid_utf8("x\xF0\x9F\x98", out), "\xF0\x9F\x98");
  EXPECT_EQ(out, "x");
}

TEST(TokenTrie, LongestPrefixAsBruteForce) {
  std::mt19937 rng(3);
  auto random_text = [&](size_t most) {
    std::string text(1 + rng() % most, 'a');
    for (char& c : text) c = static_cast<char>('a' + rng() % 3);
    return text;
  };
  for (int round = 0; round < 200; ++round) {
    std::vector<std::string> words(1 + rng() % 12);
    TokenTrie trie;
    for (size_t i = 0; i < words.size(); ++i) trie.add(words[i] = random_text(5), static_cast<TokenId>(i));
    const std::string text = random_text(12);
    std::optional<size_t> best;
    for (size_t i = 0; i < words.size(); ++i) {
      if (text.rfind(words[i], 0) == 0 && (!best.has_value() || words[i].size() > words[*best].size())) best = i;
    }
    const auto match = trie.longest_prefix(text);
    ASSERT_EQ(match.has_value(), best.has_value());
    if (best.has_value()) {
      EXPECT_EQ(match->bytes, words[*best].size());
      EXPECT_EQ(match->id, static_cast<TokenId>(*best));
    }
  }
}

}  // namespace
}  // namespace pkv
