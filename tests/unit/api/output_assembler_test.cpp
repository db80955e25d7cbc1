// Text, ids and log-probabilities of an answer, token by token.
#include "server/api/output_assembler.h"

#include <gmock/gmock.h>

#include "tests/unit/api/api_fixture.h"

namespace pkv {
namespace {

using ::testing::ElementsAre;
constexpr size_t kAll = SIZE_MAX;

class OutputAssemblerTest : public ApiTest {
 protected:
  TokenId byte(unsigned char value) const { return *tokenizer_->find_token(std::string(1, static_cast<char>(value))); }
  std::vector<TokenId> encode(const std::string& text) const {
    return *tokenizer_->encode(text, SpecialTokens::kParse);
  }

  OutputAssembler assembler(const OutputOptions& options) { return OutputAssembler(*tokenizer_, request_, options); }
  // Pushes the tokens of `text`; false as soon as one ends the answer.
  bool push(OutputAssembler& output, const std::string& text) const {
    for (const TokenId id : encode(text)) {
      if (!output.add_token({.id = id, .logprob = -1})) return false;
    }
    return true;
  }

  Request request_{.prompt = {5, 6}, .end_tokens = {test::kTinyEndToken}};
};

TEST_F(OutputAssemblerTest, TextLeavesTheEndTokenOut) {
  OutputAssembler output = assembler({});
  EXPECT_TRUE(push(output, "hi"));
  EXPECT_TRUE(output.add_token({.id = test::kTinyEndToken}));
  output.finish({.finish_reason = FinishReason::kStop, .matched_stop_token = test::kTinyEndToken});
  const OutputAssembler::Piece piece = output.take(kAll);
  EXPECT_EQ(piece.text, "hi");
  EXPECT_EQ(piece.token_ids.back(), test::kTinyEndToken);
  EXPECT_EQ(output.matched_stop(), "<|im_end|>");
}

TEST_F(OutputAssemblerTest, AnEndTokenThatDidNotEndTheAnswerIsText) {
  OutputAssembler output = assembler({});
  push(output, "a");
  output.add_token({.id = test::kTinyEndToken});
  push(output, "b");
  output.finish({});
  EXPECT_EQ(output.take(kAll).text, "a<|im_end|>b");
}

TEST_F(OutputAssemblerTest, StopStringsAreCutOut) {
  OutputAssembler output = assembler({.stop = {"cd"}});
  EXPECT_FALSE(push(output,
                    "ab"
                    "cdef"));
  output.finish({.finish_reason = FinishReason::kStop});
  EXPECT_EQ(output.take(kAll).text, "ab");
  EXPECT_EQ(output.matched_stop(), "cd");
}

TEST_F(OutputAssemblerTest, TheBeginningOfAStopStringIsHeldBack) {
  OutputAssembler output = assembler({.return_token_ids = false, .stop = {"xyz"}});
  output.add_token({.id = byte('a')});
  EXPECT_EQ(output.take(kAll).text, "a");
  output.add_token({.id = byte('x')});
  EXPECT_FALSE(output.ready());
  output.finish({});
  EXPECT_EQ(output.take(kAll).text, "x");
}

TEST_F(OutputAssemblerTest, StopStringsCountFromMinTokensOn) {
  request_.sampling.min_tokens = 2;
  OutputAssembler output = assembler({.stop = {"a"}});
  EXPECT_TRUE(output.add_token({.id = byte('a')}));
  EXPECT_FALSE(output.add_token({.id = byte('a')}));
}

TEST_F(OutputAssemblerTest, CharactersAreNeverCut) {
  OutputAssembler output = assembler({.return_token_ids = false});
  output.add_token({.id = byte(0xC3)});
  EXPECT_FALSE(output.ready());
  output.add_token({.id = byte(0xBC)});
  EXPECT_EQ(output.take(kAll).text, "\xC3\xBC");
  output.add_token({.id = byte(0xC3)});
  output.finish({});
  EXPECT_EQ(output.take(kAll).text, "\xEF\xBF\xBD");
}

TEST_F(OutputAssemblerTest, EchoBeginsWithThePrompt) {
  request_.prompt = encode("Q: ");
  OutputAssembler output = assembler({.logprobs = true, .echo = true});
  std::vector<TokenLogprob> prompt;
  for (const TokenId id : request_.prompt) prompt.push_back({.id = id, .logprob = prompt.empty() ? 0.0F : -2.0F});
  output.add_prompt_logprobs(prompt);
  EXPECT_FALSE(output.ready());
  push(output, "A");
  output.finish({});
  const OutputAssembler::Piece piece = output.take(kAll);
  EXPECT_EQ(piece.text, "Q: A");
  EXPECT_EQ(piece.token_ids.size(), request_.prompt.size() + encode("A").size());
  ASSERT_EQ(piece.logprobs.size(), piece.token_ids.size());
  EXPECT_EQ(piece.logprobs.front().logprob, 0.0F);
  EXPECT_EQ(piece.logprobs.back().logprob, -1.0F);
}

TEST_F(OutputAssemblerTest, ScoringAlone) {
  request_.prompt = encode("Q");
  OutputAssembler output = assembler({.echo = true});
  output.finish({});
  EXPECT_TRUE(output.ready());
  EXPECT_EQ(output.take(kAll).text, "Q");
}

TEST_F(OutputAssemblerTest, IntervalsExceptForTheFirstAndTheLast) {
  OutputAssembler output = assembler({.interval_tokens = 3});
  output.add_token({.id = byte('a')});
  EXPECT_TRUE(output.ready());
  EXPECT_EQ(output.take(kAll).text, "a");
  output.add_token({.id = byte('b')});
  output.add_token({.id = byte('c')});
  EXPECT_FALSE(output.ready());
  output.add_token({.id = byte('d')});
  EXPECT_TRUE(output.ready());
  EXPECT_EQ(output.take(kAll).text, "bcd");
  output.add_token({.id = byte('e')});
  EXPECT_FALSE(output.ready());
  output.finish({});
  EXPECT_TRUE(output.ready());
}

TEST_F(OutputAssemblerTest, LongPiecesAreSplit) {
  OutputAssembler output = assembler({.interval_tokens = 100});
  for (const char c : {'a', 'b', 'c'}) output.add_token({.id = byte(static_cast<unsigned char>(c))});
  EXPECT_THAT(output.take(2).token_ids, ElementsAre(byte('a'), byte('b')));
  EXPECT_FALSE(output.ready());
  output.finish({});
  EXPECT_THAT(output.take(2).token_ids, ElementsAre(byte('c')));
  EXPECT_FALSE(output.ready());
}

TEST_F(OutputAssemblerTest, WholeAnswers) {
  std::vector<TokenId> tokens = encode("hi");
  EXPECT_EQ(answer_text(*tokenizer_, request_, {}), "");
  EXPECT_EQ(answer_text(*tokenizer_, request_, tokens), "hi");
  tokens.push_back(test::kTinyEndToken);
  EXPECT_EQ(answer_text(*tokenizer_, request_, tokens), "hi");
  request_.sampling.ignore_eos = true;
  EXPECT_EQ(answer_text(*tokenizer_, request_, tokens), "hi<|im_end|>");
  request_.sampling.stop_token_ids = {test::kTinyEndToken};
  EXPECT_EQ(answer_text(*tokenizer_, request_, tokens), "hi");
}

}  // namespace
}  // namespace pkv
