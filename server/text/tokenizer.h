// Text to token ids and back, as the model's own GGUF metadata describes it: byte-level BPE (tokenizer.ggml.model =
// gpt2, with the pre-tokenisers smollm, gpt-2, llama-bpe, qwen2) and SentencePiece-style BPE (llama). Const and
// thread-safe.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "server/model/gguf.h"

namespace pkv {

using TokenId = int32_t;

// What to do with the text of special (control) tokens found in the input.
enum class SpecialTokens : uint8_t { kParse, kPlainText };

struct SpecialToken {
  TokenId id = 0;
  size_t bytes = 0;
};

struct EncodedText {
  std::vector<TokenId> ids;
  std::vector<uint32_t>
      begins;  // per token: byte offset in the text where it begins; ascending, tokens of one character share it
};

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // INVALID_ARGUMENT (with the byte offset) where `text` is not valid UTF-8; CANCELLED soon after `stop` was requested:
  // what cannot be interrupted takes a few milliseconds a megabyte. Adds no begin-of-text token.
  virtual absl::StatusOr<std::vector<TokenId>> encode(std::string_view text, SpecialTokens special,
                                                      const std::stop_token& stop = {}) const = 0;
  virtual absl::StatusOr<EncodedText> encode_with_offsets(std::string_view text, SpecialTokens special,
                                                          const std::stop_token& stop = {}) const = 0;

  // The longest token that kParse finds at the beginning of `text`: control tokens, and those that are found in every
  // text.
  virtual std::optional<SpecialToken> special_prefix(std::string_view text) const = 0;

  // The bytes of one token, special tokens as their text; possibly a part of a UTF-8 sequence. `id` must be in range.
  virtual std::string_view token_bytes(TokenId id) const = 0;
  // All bytes of `ids`, without the leading space that SentencePiece models put in front of a text. Invalid UTF-8 (from
  // cut sequences) is replaced by U+FFFD. INVALID_ARGUMENT naming the index of an id that is out of range; CANCELLED
  // as encode().
  virtual absl::StatusOr<std::string> decode(std::span<const TokenId> ids, const std::stop_token& stop = {}) const = 0;

  virtual int32_t vocab_size() const = 0;
  virtual bool is_special(TokenId id) const = 0;  // control tokens
  // Whether encode() puts a space in front of a text, which decode() takes away again (SentencePiece models).
  virtual bool adds_leading_space() const = 0;
  virtual std::optional<TokenId> find_token(std::string_view text) const = 0;
  virtual std::optional<TokenId> bos() const = 0;           // set only if the model wants it in front of every text
  virtual std::span<const TokenId> end_tokens() const = 0;  // generation stops at any of these
};

// INVALID_ARGUMENT naming the key that is wrong, UNIMPLEMENTED naming a tokenizer model or pre-tokeniser we do not
// have.
absl::StatusOr<std::unique_ptr<Tokenizer>> load_tokenizer(const GgufFile& file);

}  // namespace pkv
