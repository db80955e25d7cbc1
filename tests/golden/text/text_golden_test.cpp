// Pre-tokenisers, both kinds of BPE and the chat formats against the values of independent implementations that
// make_text_cases.py has written.
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>

#include "server/text/chat_template.h"
#include "server/text/detokenizer.h"
#include "server/text/tokenizer.h"
#include "tests/support/gguf_writer.h"

namespace pkv {
namespace {

using nlohmann::json;

json read_cases(const std::string& name) {
  const char* folder = std::getenv("PKV_GOLDEN_DIR");
  if (folder == nullptr) {
    ADD_FAILURE() << "PKV_GOLDEN_DIR is not set; ctest sets it to tests/golden";
    return json::array();
  }
  std::ifstream file(std::string(folder) + "/text/" + name);
  EXPECT_TRUE(file.good()) << name;
  return json::parse(file);
}

std::unique_ptr<Tokenizer> load(const test::GgufWriter& writer) {
  const test::TempFile file = writer.write();
  auto gguf = GgufFile::open(file.path());
  EXPECT_TRUE(gguf.ok()) << gguf.status();
  if (!gguf.ok()) return nullptr;
  auto tokenizer = load_tokenizer(**gguf);
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return tokenizer.ok() ? *std::move(tokenizer) : nullptr;
}

test::GgufWriter vocabulary(const json& model) {
  test::GgufWriter writer;
  writer.set("tokenizer.ggml.tokens", model["tokens"].get<std::vector<std::string>>());
  writer.set("tokenizer.ggml.token_type", model["types"].get<std::vector<int32_t>>());
  writer.set("tokenizer.ggml.eos_token_id", uint32_t{2});
  writer.set("tokenizer.ggml.bos_token_id", uint32_t{1});
  return writer;
}

TEST(ByteLevelBpe, EqualsHuggingFaceTokenizers) {
  const json models = read_cases("bpe_cases.json");
  ASSERT_EQ(models.size(), 4u);
  for (const json& model : models) {
    SCOPED_TRACE(model["pre"]);
    const auto tokenizer = load(vocabulary(model)
                                    .set("tokenizer.ggml.model", "gpt2")
                                    .set("tokenizer.ggml.pre", model["pre"].get<std::string>())
                                    .set("tokenizer.ggml.merges", model["merges"].get<std::vector<std::string>>()));
    ASSERT_NE(tokenizer, nullptr);
    EXPECT_GT(model["cases"].size(), 200u);
    for (const json& c : model["cases"]) {
      const auto text = c["text"].get<std::string>();
      const auto ids = c["ids"].get<std::vector<TokenId>>();
      const auto plain_ids = c.value("plain_ids", ids);
      const auto parsed = tokenizer->encode(text, SpecialTokens::kParse);
      ASSERT_TRUE(parsed.ok()) << parsed.status();
      EXPECT_EQ(*parsed, ids) << c["text"];
      const auto plain = tokenizer->encode(text, SpecialTokens::kPlainText);
      ASSERT_TRUE(plain.ok()) << plain.status();
      EXPECT_EQ(*plain, plain_ids) << c["text"];
      if (model["pre"] == "smollm") continue;  // its vocabulary lacks bytes
      EXPECT_EQ(tokenizer->decode(*parsed).value(), text);
      EXPECT_EQ(tokenizer->decode(*plain).value(), text);
    }
  }
}

TEST(SentencePieceBpe, EqualsSentencePiece) {
  const json models = read_cases("spm_cases.json");
  ASSERT_EQ(models.size(), 3u);
  for (const json& model : models) {
    SCOPED_TRACE(model["name"]);
    const auto tokenizer = load(vocabulary(model)
                                    .set("tokenizer.ggml.model", "llama")
                                    .set("tokenizer.ggml.unknown_token_id", uint32_t{0})
                                    .set("tokenizer.ggml.add_space_prefix", model["add_space_prefix"].get<bool>())
                                    .set("tokenizer.ggml.scores", model["scores"].get<std::vector<float>>()));
    ASSERT_NE(tokenizer, nullptr);
    EXPECT_GT(model["cases"].size(), 150u);
    for (const json& c : model["cases"]) {
      const auto ids = tokenizer->encode(c["text"].get<std::string>(), SpecialTokens::kPlainText);
      ASSERT_TRUE(ids.ok()) << ids.status();
      EXPECT_EQ(*ids, c["ids"].get<std::vector<TokenId>>()) << c["text"];
      if (model["name"] == "no_byte_tokens") continue;  // SentencePiece writes unknown characters in a way of its own
      EXPECT_EQ(tokenizer->decode(*ids).value(), c["decoded"].get<std::string>()) << c["text"];
    }
  }
}

// Every marker the formats use, and the bytes.
std::unique_ptr<Tokenizer> chat_tokenizer() {
  std::vector<std::string> tokens = {
      "<unk>", "<s>", "</s>", "<|im_end|>", "<|im_start|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"};
  std::vector<int32_t> types(tokens.size(), 3);
  tokens.emplace_back("\xE2\x96\x81");  // a space
  types.push_back(1);
  for (int byte = 0; byte < 256; ++byte) {
    char name[8];
    std::snprintf(name, sizeof name, "<0x%02X>", byte);
    tokens.emplace_back(name);
    types.push_back(6);
  }
  return load(test::GgufWriter()
                  .set("tokenizer.ggml.model", "llama")
                  .set("tokenizer.ggml.add_space_prefix", false)
                  .set("tokenizer.ggml.bos_token_id", uint32_t{1})
                  .set("tokenizer.ggml.eos_token_id", uint32_t{2})
                  .set("tokenizer.ggml.scores", std::vector<float>(tokens.size()))
                  .set("tokenizer.ggml.tokens", tokens)
                  .set("tokenizer.ggml.token_type", types));
}

TEST(ChatFormats, EqualJinja) {
  const json templates = read_cases("chat_cases.json");
  ASSERT_GE(templates.size(), 11u);
  const auto tokenizer = chat_tokenizer();
  ASSERT_NE(tokenizer, nullptr);
  for (const json& t : templates) {
    const auto template_name = t["name"].get<std::string>();
    SCOPED_TRACE(template_name);
    const ChatTemplate chat(t["template"].get<std::string>(), *tokenizer);
    ASSERT_TRUE(chat.status().ok()) << chat.status();
    for (const json& c : t["cases"]) {
      std::vector<ChatMessage> messages;
      for (const json& m : c["messages"]) messages.push_back({m["role"], m["content"]});
      const auto rendered = chat.render(messages, c["add_generation_prompt"].get<bool>());
      ASSERT_TRUE(rendered.ok()) << rendered.status() << c;
      EXPECT_EQ(rendered->text, c["text"].get<std::string>()) << c;
      EXPECT_EQ(tokenizer->decode(rendered->token_ids).value(), rendered->text);
      const bool has_system = messages[0].role == "system";
      if (!has_system) {
        EXPECT_EQ(rendered->system_begin, rendered->system_end);
      }
      const std::span<const TokenId> ids(rendered->token_ids);
      const auto system = ids.subspan(rendered->system_begin, rendered->system_end - rendered->system_begin);
      if (has_system && template_name.find("llama3") == std::string::npos && template_name != "chatml-lines") {
        EXPECT_EQ(tokenizer->decode(system).value(), messages[0].content);  // every token here is one byte
      }
    }
  }
}

}  // namespace
}  // namespace pkv
