// Reads and checks tokens, types and special ids.
#include "server/text/vocabulary.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "absl/status/status.h"
#include "kernels/status_macros.h"
#include "server/model/errors.h"

namespace pkv {
namespace {

constexpr std::string_view kTokensKey = "tokenizer.ggml.tokens";
constexpr std::string_view kTypesKey = "tokenizer.ggml.token_type";
constexpr std::string_view kBosKey = "tokenizer.ggml.bos_token_id";
constexpr std::string_view kEosKey = "tokenizer.ggml.eos_token_id";

// Special tokens that end a turn or a text in every model that has them. Chat models often name only one of theirs as
// eos (Llama 3: <|eot_id|> or <|end_of_text|>; ChatML models: <|im_end|> or <|endoftext|>), and may write the other.
constexpr std::array<std::string_view, 6> kEndNames = {"<|im_end|>", "<|eot_id|>",    "<|eom_id|>",
                                                       "<|end|>",    "<|endoftext|>", "<|end_of_text|>"};

absl::Status load_types(const GgufFile& file, Vocabulary& vocabulary) {
  vocabulary.types.assign(vocabulary.texts.size(), TokenType::kNormal);
  if (!file.has(kTypesKey)) return absl::OkStatus();
  PKV_ASSIGN_OR_RETURN(const auto types, file.integers(kTypesKey));
  if (types.size() != vocabulary.texts.size()) {
    return invalid_argument(kTypesKey, ": ", types.size(), " types for ", vocabulary.texts.size(), " tokens");
  }
  for (size_t id = 0; id < types.size(); ++id) {
    const int64_t type = types[id];
    if (type < 0 || type > 6) {
      return invalid_argument(kTypesKey, "[", id, "]: ", type, " is no token type");
    }
    if (type != 0) vocabulary.types[id] = static_cast<TokenType>(type);  // 0: undefined, an ordinary token
  }
  return absl::OkStatus();
}

absl::StatusOr<std::optional<TokenId>> load_id(const GgufFile& file, std::string_view key, int32_t vocab_size) {
  if (!file.has(key)) return std::optional<TokenId>();
  PKV_ASSIGN_OR_RETURN(const auto id, file.u32(key));
  if (id >= static_cast<uint32_t>(vocab_size)) {
    return invalid_argument(key, ": ", id, " is not below the vocabulary's ", vocab_size);
  }
  return std::optional<TokenId>(static_cast<TokenId>(id));
}

absl::Status load_end_tokens(const GgufFile& file, Vocabulary& vocabulary) {
  auto add = [&](TokenId id) {
    if (std::find(vocabulary.end_tokens.begin(), vocabulary.end_tokens.end(), id) == vocabulary.end_tokens.end()) {
      vocabulary.end_tokens.push_back(id);
    }
  };
  for (const std::string_view key :
       {kEosKey, std::string_view("tokenizer.ggml.eot_token_id"), std::string_view("tokenizer.ggml.eom_token_id")}) {
    PKV_ASSIGN_OR_RETURN(const auto id, load_id(file, key, vocabulary.size()));
    if (id.has_value()) add(*id);
  }
  for (TokenId id = 0; id < vocabulary.size(); ++id) {
    const TokenType type = vocabulary.types[id];
    if (type != TokenType::kControl && type != TokenType::kUserDefined) continue;
    if (std::find(kEndNames.begin(), kEndNames.end(), vocabulary.texts[id]) != kEndNames.end()) add(id);
  }
  if (vocabulary.end_tokens.empty()) {
    return invalid_argument(kEosKey, ": absent, and no token of the vocabulary ends a text");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Vocabulary> load_vocabulary(const GgufFile& file, bool add_bos) {
  Vocabulary vocabulary;
  PKV_ASSIGN_OR_RETURN(auto texts, file.strings(kTokensKey));
  if (texts.empty() || texts.size() > static_cast<size_t>(INT32_MAX)) {
    return invalid_argument(kTokensKey, ": ", texts.size(), " tokens");
  }
  vocabulary.texts = std::move(texts);
  PKV_RETURN_IF_ERROR(load_types(file, vocabulary));

  PKV_ASSIGN_OR_RETURN(const auto wants_bos, file.boolean_or("tokenizer.ggml.add_bos_token", add_bos));
  PKV_ASSIGN_OR_RETURN(const auto bos, load_id(file, kBosKey, vocabulary.size()));
  if (wants_bos && !bos.has_value()) {
    return invalid_argument(kBosKey, ": absent, but the model wants it in front of every text");
  }
  if (wants_bos) vocabulary.bos = bos;

  PKV_ASSIGN_OR_RETURN(vocabulary.unknown, load_id(file, "tokenizer.ggml.unknown_token_id", vocabulary.size()));
  PKV_RETURN_IF_ERROR(load_end_tokens(file, vocabulary));
  return vocabulary;
}

}  // namespace pkv
