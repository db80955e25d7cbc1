// The vocabulary of a real model's file, PKV_MODEL, and golden strings and chats beside it, in PKV_GOLDEN_DIR/text.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "server/model/gguf.h"
#include "server/text/detokenizer.h"
#include "server/text/tokenizer.h"

namespace pkv::test {

class RealVocabulary : public ::testing::Test {
 protected:
  void SetUp() override {
    const char* model = std::getenv("PKV_MODEL");
    const char* folder = std::getenv("PKV_GOLDEN_DIR");
    ASSERT_TRUE(model != nullptr && *model != '\0')
        << "PKV_MODEL is not set; scripts/test fetches the file and sets it";
    ASSERT_NE(folder, nullptr) << "PKV_GOLDEN_DIR is not set; ctest sets it";
    folder_ = std::string(folder) + "/text/";
    auto file = GgufFile::open(model);
    ASSERT_TRUE(file.ok()) << file.status();
    file_ = *std::move(file);
    auto tokenizer = load_tokenizer(*file_);
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    tokenizer_ = *std::move(tokenizer);
  }

  // Every string of tokens.jsonl there and back, whole and token by token. How many there are.
  void check_golden_strings(int& count) {
    std::ifstream file(folder_ + "tokens.jsonl");
    count = 0;
    for (std::string line; std::getline(file, line); ++count) {
      const nlohmann::json c = nlohmann::json::parse(line);
      const auto text = c["text"].get<std::string>();
      const auto ids = tokenizer_->encode(text, SpecialTokens::kParse);
      ASSERT_TRUE(ids.ok()) << ids.status();
      EXPECT_EQ(*ids, c["ids"].get<std::vector<TokenId>>()) << c["text"];
      EXPECT_EQ(tokenizer_->decode(*ids).value(), text);
      Detokenizer stream(*tokenizer_);
      std::string streamed;
      for (const TokenId id : *ids) streamed += stream.push(id);
      EXPECT_EQ(streamed + stream.finish(), text);
    }
  }

  std::string folder_;
  std::unique_ptr<GgufFile> file_;
  std::unique_ptr<Tokenizer> tokenizer_;
};

}  // namespace pkv::test
