// Streaming: text is valid UTF-8 at every moment, and nothing of a stop string leaks.
#include "server/text/detokenizer.h"

#include <gtest/gtest.h>

#include <random>

#include "server/text/utf8.h"
#include "tests/unit/text/vocabularies.h"

namespace pkv {
namespace {

using test::byte_id;

TEST(Detokenizer, HoldsBackIncompleteCharacters) {
  const auto tokenizer = test::load(test::bpe_vocabulary());
  Detokenizer stream(*tokenizer);
  EXPECT_EQ(stream.push(byte_id(0xF0)), "");
  EXPECT_EQ(stream.push(byte_id(0x9F)), "");
  EXPECT_EQ(stream.push(byte_id(0x98)), "");
  EXPECT_EQ(stream.push(byte_id(0x80)), "\xF0\x9F\x98\x80");
  EXPECT_EQ(stream.push(byte_id(0xC3)), "");
  EXPECT_EQ(stream.push(byte_id('a')), "\uFFFDa");
  EXPECT_EQ(stream.push(byte_id(0x80)), "\uFFFD");
  EXPECT_EQ(stream.push(byte_id(0xE2)), "");
  EXPECT_EQ(stream.push(2), "\uFFFD<|im_end|>");
  EXPECT_EQ(stream.push(byte_id(0xE2)), "");
  EXPECT_EQ(stream.push(byte_id(0x82)), "");
  EXPECT_EQ(stream.finish(), "\uFFFD");
  EXPECT_EQ(stream.finish(), "");
}

TEST(Detokenizer, AnyTokensGiveValidTextEqualToDecode) {
  const auto tokenizer = test::load(test::bpe_vocabulary());
  std::mt19937 rng(1);
  for (int round = 0; round < 300; ++round) {
    std::vector<TokenId> ids(rng() % 40);
    for (TokenId& id : ids) id = static_cast<TokenId>(rng() % static_cast<uint32_t>(tokenizer->vocab_size()));
    Detokenizer stream(*tokenizer);
    std::string text;
    for (const TokenId id : ids) {
      text += stream.push(id);
      ASSERT_EQ(find_invalid_utf8(text), std::nullopt);
    }
    EXPECT_EQ(text + stream.finish(), tokenizer->decode(ids).value());
  }
}

TEST(Detokenizer, LeadingSpaceOnlyAtTheBeginningOfSentencePieceTexts) {
  const auto spm = test::load(test::spm_vocabulary());
  const TokenId space_ab = 264;
  EXPECT_EQ(Detokenizer(*spm, true).push(space_ab), "ab");
  EXPECT_EQ(Detokenizer(*spm, false).push(space_ab), " ab");
  Detokenizer stream(*spm, true);
  EXPECT_EQ(stream.push(space_ab), "ab");
  EXPECT_EQ(stream.push(space_ab), " ab");
  const auto bpe = test::load(test::bpe_vocabulary());
  EXPECT_EQ(Detokenizer(*bpe, true).push(byte_id(' ')), " ");
}

struct Stopped {
  std::string text;
  int matched = -1;
};

Stopped run(const std::vector<std::string>& stops, const std::vector<std::string>& pieces) {
  StopMatcher matcher(stops);
  Stopped stopped;
  for (const std::string& piece : pieces) {
    const auto result = matcher.push(piece);
    stopped.text += result.text;
    if (result.matched >= 0) {
      stopped.matched = result.matched;
      return stopped;
    }
  }
  stopped.text += matcher.finish();
  return stopped;
}

TEST(StopMatcher, HoldsBackWhatMayBeTheBeginning) {
  StopMatcher matcher({"</end>", "\n\n"});
  EXPECT_EQ(matcher.push("abc").text, "abc");
  EXPECT_EQ(matcher.push("x</en").text, "x");
  EXPECT_EQ(matcher.push("c").text, "</enc");
  EXPECT_EQ(matcher.push("y\n").text, "y");
  EXPECT_EQ(matcher.finish(), "\n");
}

TEST(StopMatcher, FirstCompleteStopWinsAndOfThoseTheLongest) {
  EXPECT_EQ(run({"abcd", "bc"}, {"xabcd"}).text, "xa");
  EXPECT_EQ(run({"bc", "abc"}, {"xabc"}).matched, 1);
  EXPECT_EQ(run({"", "b"}, {"ab"}).matched, 1);  // an empty one never matches
  EXPECT_EQ(run({}, {"ab", "c"}).text, "abc");
  EXPECT_EQ(run({"aab"}, {"a", "a", "a", "b"}).text, "a");
}

// The result is that of a search in the whole text, however the text is cut.
TEST(StopMatcher, AgreesWithSearchInTheWholeText) {
  std::mt19937 rng(7);
  auto random_text = [&](size_t least, size_t most) {
    std::string text(least + rng() % (most - least + 1), 'a');
    for (char& c : text) c = static_cast<char>('a' + rng() % 2);
    return text;
  };
  for (int round = 0; round < 3000; ++round) {
    std::vector<std::string> stops(1 + rng() % 3), pieces(1 + rng() % 6);
    std::string whole;
    for (std::string& stop : stops) stop = random_text(1, 6);
    for (std::string& piece : pieces) whole += piece = random_text(0, 5);
    size_t best_end = std::string::npos, best_begin = std::string::npos;
    for (const std::string& stop : stops) {
      const size_t begin = whole.find(stop);
      if (begin == std::string::npos) continue;
      const size_t end = begin + stop.size();
      if (end < best_end || (end == best_end && begin < best_begin)) {
        best_end = end;
        best_begin = begin;
      }
    }
    const Stopped stopped = run(stops, pieces);
    ASSERT_EQ(stopped.matched >= 0, best_end != std::string::npos) << whole;
    ASSERT_EQ(stopped.text, whole.substr(0, best_begin)) << whole;
  }
}

}  // namespace
}  // namespace pkv
