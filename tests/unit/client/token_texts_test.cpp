// Texts of single tokens out of a vocabulary that can only turn lists of them into text.
#include "client/token_texts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

namespace pkv::client {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

constexpr uint32_t kSeparator = 0;

// Detokenizes as a server does: bytes that are no UTF-8 become U+FFFD, one for each.
class Vocabulary {
 public:
  explicit Vocabulary(std::map<uint32_t, std::string> tokens) : tokens_(std::move(tokens)) {
    tokens_.emplace(kSeparator, "\x1e");
  }

  std::optional<std::string> operator()(const std::vector<uint32_t>& ids) const {
    std::string bytes, text;
    for (const uint32_t id : ids) bytes += tokens_.at(id);
    for (size_t at = 0; at < bytes.size();) {
      const auto first = static_cast<unsigned char>(bytes[at]);
      const size_t length = first < 0x80 ? 1 : first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : first >= 0xC0 ? 2 : 0;
      bool whole = length > 0 && at + length <= bytes.size();
      for (size_t i = 1; whole && i < length; ++i) whole = (static_cast<unsigned char>(bytes[at + i]) & 0xC0) == 0x80;
      text += whole ? bytes.substr(at, length) : "\xEF\xBF\xBD";
      at += whole ? length : 1;
    }
    return text;
  }

 private:
  std::map<uint32_t, std::string> tokens_;
};

TEST(TokenTexts, OneForEveryIdAndRepeatedOnesTwice) {
  const Vocabulary vocabulary({{1, "the "}, {2, "cat"}, {3, ""}});
  EXPECT_THAT(token_texts({1, 2, 1, 3}, kSeparator, vocabulary), ElementsAre("the ", "cat", "the ", ""));
}

TEST(TokenTexts, ThePartsOfACharacterAreOneText) {
  const Vocabulary vocabulary({{1, " \xF0\x9F"}, {2, "\x8E"}, {3, "\x89"}, {4, "x"}, {5, "\xC3"}, {6, "\xA9"}});
  EXPECT_THAT(token_texts({4, 1, 2, 3, 5, 6, 5, 6, 4}, kSeparator, vocabulary),
              ElementsAre("x", " \xF0\x9F\x8E\x89", "", "", "\xC3\xA9", "", "\xC3\xA9", "", "x"));
}

TEST(TokenTexts, PartsOfNoCharacterStayReplacements) {
  const Vocabulary vocabulary({{1, "\xF0"}, {2, "a"}, {3, "\xEF\xBF\xBD"}});
  EXPECT_THAT(token_texts({1, 2, 3}, kSeparator, vocabulary), ElementsAre("\xEF\xBF\xBD", "a", "\xEF\xBF\xBD"));
}

TEST(TokenTexts, TheSeparatorMayBeInThePromptItself) {
  const Vocabulary vocabulary({{1, "a"}});
  EXPECT_THAT(token_texts({kSeparator, 1, kSeparator}, kSeparator, vocabulary), ElementsAre("\x1e", "a", "\x1e"));
}

TEST(TokenTexts, NoneWhereTheyCannotBeToldApartOrHad) {
  EXPECT_THAT(token_texts({1, 2}, kSeparator, Vocabulary({{1, "a\x1e"}, {2, "b"}})), IsEmpty());
  EXPECT_THAT(token_texts({1}, kSeparator, [](const auto&) { return std::nullopt; }), IsEmpty());
}

TEST(WholeCharacters, TheFirstTokenHasTheCharacter) {
  EXPECT_THAT(whole_characters({"a", "\xE6", "\x97\xA5", "b"}), ElementsAre("a", "\xE6\x97\xA5", "", "b"));
  EXPECT_THAT(whole_characters({"\xF0", "\x9F", "\x8E", "\x89"}), ElementsAre("\xF0\x9F\x8E\x89", "", "", ""));
  EXPECT_THAT(whole_characters({"\xE6", "x"}), ElementsAre("\xE6x", ""));  // the byte and what came instead
  EXPECT_THAT(whole_characters({"\xFF", "x"}), ElementsAre("\xFF", "x"));
  EXPECT_THAT(whole_characters({"\xC3"}), ElementsAre("\xC3"));
}

TEST(TokenizeRequest, HasWhatTheRequestWouldSend) {
  v1::GenerateRequest request;
  request.set_model("m");
  request.set_prompt("text");
  EXPECT_EQ(tokenize_request(request).text(), "text");
  EXPECT_EQ(tokenize_request(request).model(), "m");
  request.mutable_chat()->add_messages()->set_content("hello");
  EXPECT_EQ(tokenize_request(request).chat().messages(0).content(), "hello");
}

}  // namespace
}  // namespace pkv::client
