// Both kinds of tokenizer on vocabularies small enough to work out by hand, and the refusal of malformed ones.
#include "server/text/tokenizer.h"

#include <gmock/gmock.h>

#include <limits>
#include <random>

#include "tests/unit/text/vocabularies.h"

namespace pkv {
namespace {

using test::bpe_vocabulary;
using test::byte_id;
using test::spm_vocabulary;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::StartsWith;

constexpr TokenId kHe = test::kFirstByte + 256, kLl = kHe + 1, kHell = kHe + 2, kHello = kHe + 3, kSpaceW = kHe + 4;

std::vector<TokenId> ends(const Tokenizer& tokenizer) {
  return {tokenizer.end_tokens().begin(), tokenizer.end_tokens().end()};
}

TEST(BpeTokenizer, MergesByRank) {
  const auto tokenizer = test::load(bpe_vocabulary());
  auto encode = [&](std::string_view text) { return tokenizer->encode(text, SpecialTokens::kPlainText).value(); };
  EXPECT_THAT(encode("hello"), ElementsAre(kHello));
  EXPECT_THAT(encode("helllo"), ElementsAre(kHell, byte_id('l'), byte_id('o')));
  EXPECT_THAT(encode("lll"), ElementsAre(kLl, byte_id('l')));  // the leftmost of equals first
  EXPECT_THAT(encode("he w"), ElementsAre(kHe, kSpaceW));
  EXPECT_THAT(encode("h\xC3\xA9"), ElementsAre(byte_id('h'), byte_id(0xC3), byte_id(0xA9)));
  EXPECT_THAT(encode(""), ElementsAre());
}

TEST(BpeTokenizer, SpecialTokensOnlyWhereParsed) {
  const auto tokenizer = test::load(bpe_vocabulary());
  EXPECT_THAT(tokenizer->encode("he<|im_end|>he", SpecialTokens::kParse).value(), ElementsAre(kHe, 2, kHe));
  const auto plain = tokenizer->encode("<|im_end|>", SpecialTokens::kPlainText).value();
  EXPECT_THAT(plain, testing::Each(testing::Ge(test::kFirstByte)));
  EXPECT_EQ(tokenizer->decode(plain).value(), "<|im_end|>");
  // User-defined tokens always, the longest of two.
  EXPECT_THAT(tokenizer->encode("<tool><tool>s<tool", SpecialTokens::kPlainText).value().front(), 3);
  EXPECT_THAT(tokenizer->encode("<tool><tool>s", SpecialTokens::kPlainText).value(), ElementsAre(3, 4));
  EXPECT_TRUE(tokenizer->is_special(2));
  EXPECT_FALSE(tokenizer->is_special(3));
  EXPECT_EQ(tokenizer->find_token("<|im_start|>"), 1);
  EXPECT_EQ(tokenizer->find_token(" w"), kSpaceW);
  EXPECT_EQ(tokenizer->find_token("nothing"), std::nullopt);
}

TEST(BpeTokenizer, OffsetsAreWhereTokensBegin) {
  const auto tokenizer = test::load(bpe_vocabulary());
  const auto encoded = tokenizer->encode_with_offsets("he<|im_end|>hello w", SpecialTokens::kParse).value();
  EXPECT_THAT(encoded.ids, ElementsAre(kHe, 2, kHello, kSpaceW));
  EXPECT_THAT(encoded.begins, ElementsAre(0, 2, 12, 17));
}

TEST(BpeTokenizer, RefusesInvalidUtf8) {
  const auto tokenizer = test::load(bpe_vocabulary());
  const auto ids = tokenizer->encode("abc\xFFx", SpecialTokens::kPlainText);
  EXPECT_EQ(ids.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ids.status().message(), "invalid UTF-8 at byte 3");
}

// Random text, long runs without a break, and runs of white space: the bytes come back.
TEST(BpeTokenizer, LongRunsComeBack) {
  std::mt19937 rng(5);
  std::string letters(1 << 18, 'h'), mixed;
  for (char& c : letters) c = "helo"[rng() % 4];
  while (mixed.size() < (1 << 16))
    mixed += std::vector<std::string>{"he", " ", "\n", "7", "\u00e9", "\u3000", "'s", "!", "<tool>", "<"}[rng() % 10];
  for (const std::string_view pre : {"gpt-2", "smollm", "llama-bpe", "qwen2"}) {
    const auto tokenizer = test::load(bpe_vocabulary().set("tokenizer.ggml.pre", std::string(pre)));
    for (const std::string& text : {letters, mixed, std::string(1 << 18, ' '), std::string(1 << 18, '\n'),
                                    std::string(1 << 18, '<'), std::string(1 << 18, '1')}) {
      const auto ids = tokenizer->encode(text, SpecialTokens::kParse);
      ASSERT_TRUE(ids.ok()) << ids.status();
      ASSERT_EQ(tokenizer->decode(*ids).value(), text) << pre;
    }
  }
}

TEST(BpeTokenizer, BeginOfTextOnlyWhereTheModelWantsIt) {
  EXPECT_EQ(test::load(bpe_vocabulary())->bos(), std::nullopt);
  EXPECT_EQ(test::load(bpe_vocabulary().set("tokenizer.ggml.add_bos_token", true))->bos(), 1);
  EXPECT_EQ(test::load(bpe_vocabulary().set("tokenizer.ggml.pre", "llama-bpe"))->bos(), 1);  // Llama 3 says nothing
  EXPECT_EQ(
      test::load(bpe_vocabulary().set("tokenizer.ggml.pre", "llama-bpe").set("tokenizer.ggml.add_bos_token", false))
          ->bos(),
      std::nullopt);
}

TEST(BpeTokenizer, EndTokens) {
  EXPECT_THAT(ends(*test::load(bpe_vocabulary())), ElementsAre(2, 0));
  EXPECT_THAT(ends(*test::load(bpe_vocabulary().set("tokenizer.ggml.eos_token_id", uint32_t{0}))), ElementsAre(0, 2));
  EXPECT_THAT(ends(*test::load(bpe_vocabulary().set("tokenizer.ggml.eot_token_id", uint32_t{3}))),
              ElementsAre(2, 3, 0));
  // Without types the names are those of ordinary tokens.
  EXPECT_THAT(ends(*test::load(bpe_vocabulary().remove("tokenizer.ggml.token_type"))), ElementsAre(2));
}

TEST(SpmTokenizer, MergesByScoreAndFallsBackToBytes) {
  const auto tokenizer = test::load(spm_vocabulary());
  auto encode = [&](std::string_view text) { return tokenizer->encode(text, SpecialTokens::kPlainText).value(); };
  EXPECT_THAT(encode("ab"), ElementsAre(264));        // ab first, then ▁ab
  EXPECT_THAT(encode("abb"), ElementsAre(264, 261));  // ab beats bb
  EXPECT_THAT(encode("a b"), ElementsAre(263, 259, 261));
  EXPECT_THAT(encode("x\u00e9"), ElementsAre(259, 3 + 'x', 3 + 0xC3, 3 + 0xA9));
  EXPECT_THAT(encode(""), ElementsAre());
  EXPECT_EQ(tokenizer->decode(encode(" a\u00e9 b ")).value(), " a\u00e9 b ");
  EXPECT_EQ(tokenizer->bos(), 1);  // the default of these models
  EXPECT_EQ(tokenizer->token_bytes(3 + 0xC3), "\xC3");
}

TEST(SpmTokenizer, TextNeverBecomesAControlToken) {
  // Even if the pieces of its text exist and would merge.
  std::vector<std::string> tokens = {"<unk>", "<s>", "</s>", "<", "s", ">", "<s", "\xE2\x96\x81"};
  const auto tokenizer = test::load(spm_vocabulary()
                                        .set("tokenizer.ggml.tokens", tokens)
                                        .set("tokenizer.ggml.token_type", std::vector<int32_t>{2, 3, 3, 1, 1, 1, 1, 1})
                                        .set("tokenizer.ggml.scores", std::vector<float>(8)));
  EXPECT_THAT(tokenizer->encode("<s>", SpecialTokens::kPlainText).value(), ElementsAre(7, 6, 5));
  EXPECT_THAT(tokenizer->encode("<s>", SpecialTokens::kParse).value(), ElementsAre(1));
  EXPECT_THAT(tokenizer->encode("xys", SpecialTokens::kParse).value(), ElementsAre(7, 0, 4));  // one <unk> for two
}

TEST(SpmTokenizer, OffsetsAreInTheCallersText) {
  const auto tokenizer = test::load(spm_vocabulary());
  const auto encoded = tokenizer->encode_with_offsets("ab \u00e9</s>b", SpecialTokens::kParse).value();
  EXPECT_THAT(encoded.ids, ElementsAre(264, 259, 3 + 0xC3, 3 + 0xA9, 2, 259, 261));
  EXPECT_THAT(encoded.begins, ElementsAre(0, 2, 3, 3, 5, 9, 9));
}

struct Malformed {
  const char* key;  // the message begins with it
  test::GgufWriter writer;
};

TEST(LoadTokenizer, NamesTheKeyThatIsWrong) {
  const std::vector<float> scores(266);
  std::vector<float> nan_scores = scores;
  nan_scores[7] = std::numeric_limits<float>::quiet_NaN();
  std::vector<std::string> half_bytes(266, "x");
  half_bytes[3] = "<0x00>";
  const std::vector<Malformed> cases = {
      {"tokenizer.ggml.model", bpe_vocabulary().remove("tokenizer.ggml.model")},
      {"tokenizer.ggml.pre", bpe_vocabulary().remove("tokenizer.ggml.pre")},
      {"tokenizer.ggml.tokens", bpe_vocabulary().remove("tokenizer.ggml.tokens")},
      {"tokenizer.ggml.tokens", bpe_vocabulary().set("tokenizer.ggml.tokens", std::vector<std::string>())},
      {"tokenizer.ggml.tokens", bpe_vocabulary().set("tokenizer.ggml.tokens", "text")},
      {"tokenizer.ggml.merges", bpe_vocabulary().remove("tokenizer.ggml.merges")},
      {"tokenizer.ggml.merges[1]",
       bpe_vocabulary().set("tokenizer.ggml.merges", std::vector<std::string>{"h e", "he"})},
      {"tokenizer.ggml.merges[0]", bpe_vocabulary().set("tokenizer.ggml.merges", std::vector<std::string>{""})},
      {"tokenizer.ggml.merges[0]", bpe_vocabulary().set("tokenizer.ggml.merges", std::vector<std::string>{"h o"})},
      {"tokenizer.ggml.token_type", bpe_vocabulary().set("tokenizer.ggml.token_type", std::vector<int32_t>{1, 1})},
      {"tokenizer.ggml.token_type[0]", bpe_vocabulary().set("tokenizer.ggml.token_type", std::vector<int32_t>(266, 7))},
      {"tokenizer.ggml.eos_token_id", bpe_vocabulary().set("tokenizer.ggml.eos_token_id", uint32_t{266})},
      {"tokenizer.ggml.eos_token_id", spm_vocabulary().remove("tokenizer.ggml.eos_token_id")},
      {"tokenizer.ggml.bos_token_id", bpe_vocabulary().set("tokenizer.ggml.bos_token_id", uint32_t{1u << 31})},
      {"tokenizer.ggml.bos_token_id", spm_vocabulary().remove("tokenizer.ggml.bos_token_id")},
      {"tokenizer.ggml.unknown_token_id", spm_vocabulary().set("tokenizer.ggml.unknown_token_id", uint32_t{9999})},
      {"tokenizer.ggml.add_bos_token", bpe_vocabulary().set("tokenizer.ggml.add_bos_token", "yes")},
      {"tokenizer.ggml.scores", spm_vocabulary().remove("tokenizer.ggml.scores")},
      {"tokenizer.ggml.scores", spm_vocabulary().set("tokenizer.ggml.scores", std::vector<float>(3))},
      {"tokenizer.ggml.scores[7]", spm_vocabulary().set("tokenizer.ggml.scores", nan_scores)},
      {"tokenizer.ggml.tokens", spm_vocabulary().set("tokenizer.ggml.tokens", half_bytes)},
      {"tokenizer.ggml.unknown_token_id", spm_vocabulary()
                                              .set("tokenizer.ggml.token_type", std::vector<int32_t>(266, 1))
                                              .remove("tokenizer.ggml.unknown_token_id")},
  };
  for (size_t i = 0; i < cases.size(); ++i) {
    const auto tokenizer = test::try_load(cases[i].writer);
    EXPECT_EQ(tokenizer.status().code(), absl::StatusCode::kInvalidArgument) << i;
    EXPECT_THAT(std::string(tokenizer.status().message()), HasSubstr(cases[i].key)) << i;
  }
}

TEST(LoadTokenizer, NamesWhatIsNotSupported) {
  const auto model = test::try_load(bpe_vocabulary().set("tokenizer.ggml.model", "t5"));
  EXPECT_EQ(model.status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(model.status().message()), StartsWith("tokenizer.ggml.model: 't5'"));
  const auto pre = test::try_load(bpe_vocabulary().set("tokenizer.ggml.pre", "tekken"));
  EXPECT_EQ(pre.status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(pre.status().message()),
              HasSubstr("'tekken' is not supported (gpt-2, smollm, llama-bpe, qwen2)"));
}

}  // namespace
}  // namespace pkv
