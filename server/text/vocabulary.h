// The token list of a GGUF file with everything its metadata says of it, checked. Both tokenizers are built from it.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "server/model/gguf.h"
#include "server/text/tokenizer.h"

namespace pkv {

// tokenizer.ggml.token_type, numbered as in GGUF.
enum class TokenType : uint8_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,      // special: has a meaning of its own and no text
  kUserDefined = 4,  // always one token, wherever its text occurs
  kUnused = 5,
  kByte = 6,  // <0x00> to <0xFF> of SentencePiece models
};

// By texts that live elsewhere. Debian's absl cannot hash std::string_view.
template <typename T>
using TextMap = absl::flat_hash_map<std::string_view, T, std::hash<std::string_view>, std::equal_to<std::string_view>>;

struct Vocabulary {
  std::vector<std::string> texts;  // as the file has them: byte-level or SentencePiece spelling
  std::vector<TokenType> types;    // as many as texts
  std::optional<TokenId> bos;      // set only where the model wants it in front of every text
  std::optional<TokenId> unknown;
  std::vector<TokenId> end_tokens;  // not empty, no doubles, eos first

  int32_t size() const { return static_cast<int32_t>(texts.size()); }
};

// `add_bos`: what holds where tokenizer.ggml.add_bos_token is absent. INVALID_ARGUMENT naming the key.
absl::StatusOr<Vocabulary> load_vocabulary(const GgufFile& file, bool add_bos);

}  // namespace pkv
