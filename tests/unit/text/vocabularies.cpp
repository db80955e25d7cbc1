// Writes the vocabularies to a file and loads them as a server would.
#include "tests/unit/text/vocabularies.h"

#include <cstdio>

#include "kernels/check.h"

namespace pkv::test {
namespace {

bool printable(int byte) { return (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174; }

// The bytes in the order of GPT-2's alphabet: the printable ones, then the others.
std::vector<uint8_t> alphabet_order() {
  std::vector<uint8_t> order;
  for (const bool wanted : {true, false}) {
    for (int byte = 0; byte < 256; ++byte) {
      if (printable(byte) == wanted) order.push_back(static_cast<uint8_t>(byte));
    }
  }
  return order;
}

std::string utf8(int code) {  // below U+0800
  if (code < 0x80) return std::string(1, static_cast<char>(code));
  return {static_cast<char>(0xC0 | code >> 6), static_cast<char>(0x80 | (code & 0x3F))};
}

}  // namespace

TokenId byte_id(uint8_t byte) {
  const std::vector<uint8_t> order = alphabet_order();
  for (size_t i = 0; i < order.size(); ++i) {
    if (order[i] == byte) return kFirstByte + static_cast<TokenId>(i);
  }
  PKV_CHECK(false, "all bytes are there");
}

GgufWriter bpe_vocabulary() {
  std::vector<std::string> tokens = {"<|endoftext|>", "<|im_start|>", "<|im_end|>", "<tool>", "<tool>s"};
  std::vector<int32_t> types = {3, 3, 3, 4, 4};
  int next = 0x100;
  for (const uint8_t byte : alphabet_order()) tokens.push_back(utf8(printable(byte) ? byte : next++));
  for (const char* merged : {"he", "ll", "hell", "hello", "\xC4\xA0w"}) tokens.emplace_back(merged);
  types.resize(tokens.size(), 1);
  return GgufWriter()
      .set("tokenizer.ggml.model", "gpt2")
      .set("tokenizer.ggml.pre", "gpt-2")
      .set("tokenizer.ggml.tokens", tokens)
      .set("tokenizer.ggml.token_type", types)
      .set("tokenizer.ggml.merges", std::vector<std::string>{"h e", "l l", "he ll", "hell o", "\xC4\xA0 w"})
      .set("tokenizer.ggml.bos_token_id", uint32_t{1})
      .set("tokenizer.ggml.eos_token_id", uint32_t{2});
}

GgufWriter spm_vocabulary() {
  std::vector<std::string> tokens = {"<unk>", "<s>", "</s>"};
  std::vector<int32_t> types = {2, 3, 3};
  for (int byte = 0; byte < 256; ++byte) {
    char name[8];
    std::snprintf(name, sizeof name, "<0x%02X>", byte);
    tokens.emplace_back(name);
    types.push_back(6);
  }
  std::vector<float> scores(tokens.size());
  for (const char* piece : {"\xE2\x96\x81", "a", "b", "ab",
                            "\xE2\x96\x81"
                            "a",
                            "\xE2\x96\x81"
                            "ab",
                            "bb"})
    tokens.emplace_back(piece);
  types.resize(tokens.size(), 1);
  scores.insert(scores.end(), {-10, -11, -12, -1, -2, -3, -4});
  return GgufWriter()
      .set("tokenizer.ggml.model", "llama")
      .set("tokenizer.ggml.tokens", tokens)
      .set("tokenizer.ggml.token_type", types)
      .set("tokenizer.ggml.scores", scores)
      .set("tokenizer.ggml.bos_token_id", uint32_t{1})
      .set("tokenizer.ggml.eos_token_id", uint32_t{2})
      .set("tokenizer.ggml.unknown_token_id", uint32_t{0});
}

absl::StatusOr<std::unique_ptr<Tokenizer>> try_load(const GgufWriter& writer) {
  const TempFile file = writer.write();
  auto gguf = GgufFile::open(file.path());
  if (!gguf.ok()) return gguf.status();
  return load_tokenizer(**gguf);
}

std::unique_ptr<Tokenizer> load(const GgufWriter& writer) {
  auto tokenizer = try_load(writer);
  PKV_CHECK(tokenizer.ok(), tokenizer.status().ToString().c_str());
  return *std::move(tokenizer);
}

}  // namespace pkv::test
