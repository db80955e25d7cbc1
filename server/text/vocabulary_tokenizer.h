// What both kinds of tokenizer have in common: the vocabulary, special tokens in the text, decoding.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "server/text/token_trie.h"
#include "server/text/tokenizer.h"
#include "server/text/vocabulary.h"

namespace pkv {

class VocabularyTokenizer : public Tokenizer {
 public:
  VocabularyTokenizer(const VocabularyTokenizer&) = delete;  // the maps point into the strings
  VocabularyTokenizer& operator=(const VocabularyTokenizer&) = delete;

  absl::StatusOr<std::vector<TokenId>> encode(std::string_view text, SpecialTokens special,
                                              const std::stop_token& stop) const final;
  absl::StatusOr<EncodedText> encode_with_offsets(std::string_view text, SpecialTokens special,
                                                  const std::stop_token& stop) const final;
  std::optional<SpecialToken> special_prefix(std::string_view text) const final {
    return special_.longest_prefix(text);
  }
  std::string_view token_bytes(TokenId id) const final;
  absl::StatusOr<std::string> decode(std::span<const TokenId> ids, const std::stop_token& stop) const final;
  int32_t vocab_size() const final { return vocabulary_.size(); }
  bool is_special(TokenId id) const final;
  std::optional<TokenId> find_token(std::string_view text) const final;
  std::optional<TokenId> bos() const final { return vocabulary_.bos; }
  std::span<const TokenId> end_tokens() const final { return vocabulary_.end_tokens; }

 protected:
  // `bytes`: what each token stands for, as many as the vocabulary has tokens.
  VocabularyTokenizer(Vocabulary vocabulary, std::vector<std::string> bytes);

  // Appends the tokens of a run of ordinary text: valid UTF-8, not empty, no special tokens in it. `begin` is the run's
  // offset, which offsets count from. CANCELLED soon after `stop` was requested.
  virtual absl::Status encode_run(std::string_view run, uint32_t begin, const std::stop_token& stop,
                                  EncodedText& out) const = 0;

  const Vocabulary& vocabulary() const { return vocabulary_; }

 private:
  Vocabulary vocabulary_;
  std::vector<std::string> bytes_;
  TextMap<TokenId> ids_by_bytes_;  // into bytes_; a special token before others
  TokenTrie user_defined_;         // matched in every text
  TokenTrie special_;              // matched where special tokens are parsed: these too
};

// INVALID_ARGUMENT naming the key, as load_tokenizer.
absl::StatusOr<std::unique_ptr<Tokenizer>> load_bpe_tokenizer(const GgufFile& file);
absl::StatusOr<std::unique_ptr<Tokenizer>> load_spm_tokenizer(const GgufFile& file);

}  // namespace pkv
