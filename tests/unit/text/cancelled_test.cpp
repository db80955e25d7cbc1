// A stop that comes before work on a text, or in the midst of it: wherever memory is asked for.
#include <gtest/gtest.h>

#include <stop_token>
#include <string>

#include "server/text/chat_tokens.h"
#include "server/text/pair_merger.h"
#include "tests/support/failing_new.h"
#include "tests/unit/text/vocabularies.h"

namespace pkv {
namespace {

// Of an error, and of a second vector that grows with the one at which the stop comes.
constexpr int64_t kAllocationsToTheEnd = 4;

// From the first allocation of encode() to the last.
void expect_stopped_anywhere(const Tokenizer& tokenizer, const std::string& text) {
  bool came = true;
  for (int64_t n = 0; came; ++n) {
    std::stop_source stop;
    test::stop_at_allocation(n, &stop);
    const auto ids = tokenizer.encode(text, SpecialTokens::kPlainText, stop.get_token());
    came = stop.stop_requested();
    EXPECT_LE(test::allocations_since_stop(), kAllocationsToTheEnd) << "after allocation " << n;
    test::stop_at_allocation(0, nullptr);
    EXPECT_EQ(absl::IsCancelled(ids.status()), came) << "after allocation " << n << ": " << ids.status();
  }
}

std::string repeated(const std::string& part) {
  std::string text;
  while (text.size() < 5000) text += part;
  return text;
}

std::stop_token stopped() {
  std::stop_source stop;
  stop.request_stop();
  return stop.get_token();
}

TEST(CancelledEncode, OfByteLevelBpe) {
  const auto tokenizer = test::load(test::bpe_vocabulary());
  EXPECT_TRUE(absl::IsCancelled(tokenizer->encode("h", SpecialTokens::kParse, stopped()).status()));
  for (const std::string part : {"h", "hel", "he w ", "<tool>"}) expect_stopped_anywhere(*tokenizer, repeated(part));
}

TEST(CancelledEncode, OfSentencePiece) {
  const auto tokenizer = test::load(test::spm_vocabulary());
  EXPECT_TRUE(absl::IsCancelled(tokenizer->encode("a", SpecialTokens::kParse, stopped()).status()));
  for (const std::string part : {"x", "ab", "a b "}) expect_stopped_anywhere(*tokenizer, repeated(part));
}

// Both while it looks at all pairs first and while it merges.
TEST(PairMerger, AsksForNoMoreThanTheMergeItIsAtOnceItIsStopped) {
  constexpr int kSymbols = 1000;
  for (const int stop_at : {10, kSymbols + 500}) {
    std::vector<Symbol> symbols;
    for (uint32_t i = 0; i < kSymbols; ++i) symbols.push_back({.begin = i, .bytes = 1});
    std::stop_source stop;
    int asked = 0;
    const auto find = [&](const Symbol&, const Symbol&) {
      if (++asked == stop_at) stop.request_stop();
      return std::optional(PairMerger<int>::Merge{.key = 0, .id = 1});
    };
    EXPECT_TRUE(absl::IsCancelled(PairMerger<int>().run(symbols, find, stop.get_token())));
    EXPECT_LE(asked, stop_at + 1);  // of its two neighbours
  }
}

TEST(CancelledDecode, OfAnyTokens) {
  const auto tokenizer = test::load(test::bpe_vocabulary());
  EXPECT_TRUE(absl::IsCancelled(tokenizer->decode(std::vector<TokenId>{7}, stopped()).status()));
}

TEST(CancelledChat, InItsTemplate) {
  const auto endless = jinja::Template::parse(
      "{% for a in range(99999) %}{% for b in range(99999) %}{{ 'some text' }}{% endfor %}{% endfor %}");
  std::stop_source stop;
  test::stop_at_allocation(1000, &stop);
  const absl::Status status = endless->render({}, std::nullopt, stop.get_token()).status();
  test::stop_at_allocation(0, nullptr);
  EXPECT_TRUE(absl::IsCancelled(status)) << status;
  EXPECT_EQ(endless->render({}).status().code(), absl::StatusCode::kResourceExhausted);
}

TEST(CancelledChat, WithItsOwnCode) {
  const auto tokenizer = test::load(test::bpe_vocabulary());
  const ChatTemplate chat("{{ messages[0].content }}", *tokenizer);
  EXPECT_TRUE(absl::IsCancelled(chat.render({{"user", "x"}}, true, stopped()).status()));
}

TEST(CancelledChat, WhereItBecomesTokens) {
  const auto tokenizer = test::load(test::bpe_vocabulary());
  for (const jinja::Text& text : {jinja::Text("x", 0), jinja::Text("<|im_end|>", jinja::kTemplate)}) {
    EXPECT_TRUE(absl::IsCancelled(chat_tokens(text, 0, *tokenizer, stopped()).status()));
  }
}

}  // namespace
}  // namespace pkv
