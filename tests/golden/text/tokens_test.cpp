// The real SmolLM2 vocabulary: 1,200 strings on which Hugging Face tokenizers and llama.cpp agree, and whole chat
// prompts.
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "server/text/chat_template.h"
#include "server/text/tokenizer.h"
#include "tests/golden/text/real_vocabulary.h"

namespace pkv {
namespace {

using nlohmann::json;

using SmolLm2Test = test::RealVocabulary;

TEST_F(SmolLm2Test, EncodesAndDecodesEveryGoldenString) {
  int count = 0;
  ASSERT_NO_FATAL_FAILURE(check_golden_strings(count));
  EXPECT_EQ(count, 1200);
}

TEST_F(SmolLm2Test, RendersGoldenChatPrompts) {
  const ChatTemplate chat(file_->string("tokenizer.chat_template").value(), *tokenizer_);
  EXPECT_TRUE(chat.status().ok()) << chat.status();
  const json prompts = json::parse(std::ifstream(folder_ + "chat_prompts.json"));
  ASSERT_EQ(prompts.size(), 3u);
  for (const auto& [name, value] : prompts.items()) {
    SCOPED_TRACE(name);
    const auto ids = value.get<std::vector<TokenId>>();
    const std::string text = tokenizer_->decode(ids).value();
    const std::string open = "<|im_start|>user\n", close = "<|im_end|>\n<|im_start|>assistant\n";
    const size_t begin = text.find(open) + open.size();
    ASSERT_EQ(text.rfind(close) + close.size(), text.size());
    const std::string content = text.substr(begin, text.size() - close.size() - begin);

    const auto rendered = chat.render({{"user", content}}, true);
    ASSERT_TRUE(rendered.ok()) << rendered.status();
    EXPECT_EQ(rendered->token_ids, ids);
    EXPECT_EQ(rendered->text, text);
    EXPECT_EQ(rendered->system_begin, rendered->system_end) << "the default system message is not the caller's";

    // The same prompt with the template's default system message written by the caller.
    const std::string default_system = "You are a helpful AI assistant named SmolLM, trained by Hugging Face";
    const auto explicit_system = chat.render({{"system", default_system}, {"user", content}}, true);
    ASSERT_TRUE(explicit_system.ok()) << explicit_system.status();
    EXPECT_EQ(explicit_system->token_ids, ids);
    EXPECT_EQ(explicit_system->system_begin, 3);  // behind <|im_start|> system \n
    const std::span<const TokenId> all(ids);
    EXPECT_EQ(tokenizer_->decode(all.subspan(3, explicit_system->system_end - 3)).value(), default_system);
  }
}

TEST_F(SmolLm2Test, KnowsItsSpecialTokens) {
  EXPECT_EQ(tokenizer_->vocab_size(), 49152);
  EXPECT_EQ(tokenizer_->bos(), std::nullopt);  // add_bos_token is false
  const std::vector<TokenId> ends(tokenizer_->end_tokens().begin(), tokenizer_->end_tokens().end());
  EXPECT_EQ(ends, (std::vector<TokenId>{2, 0}));  // <|im_end|> and <|endoftext|>
  EXPECT_EQ(tokenizer_->find_token("<|im_start|>"), 1);
  EXPECT_TRUE(tokenizer_->is_special(1));
  EXPECT_FALSE(tokenizer_->is_special(17));
}

TEST_F(SmolLm2Test, RefusesInvalidUtf8AndIds) {
  const auto bad = tokenizer_->encode("ab\xC3(", SpecialTokens::kParse);
  EXPECT_EQ(bad.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(bad.status().message(), "invalid UTF-8 at byte 2");
  const std::vector<TokenId> ids = {1, 49152};
  EXPECT_EQ(tokenizer_->decode(ids).status().message(), "token_ids[1]: 49152 is not in the vocabulary of 49152");
}

}  // namespace
}  // namespace pkv
