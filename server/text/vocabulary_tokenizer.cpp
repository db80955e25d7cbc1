// Cuts special tokens out of a text and leaves the rest to the kind of tokenizer.
#include "server/text/vocabulary_tokenizer.h"

#include <utility>

#include "absl/status/status.h"
#include "kernels/check.h"
#include "kernels/status_macros.h"
#include "server/model/errors.h"
#include "server/text/cancelled.h"
#include "server/text/detokenizer.h"
#include "server/text/utf8.h"

namespace pkv {

VocabularyTokenizer::VocabularyTokenizer(Vocabulary vocabulary, std::vector<std::string> bytes)
    : vocabulary_(std::move(vocabulary)), bytes_(std::move(bytes)) {
  ids_by_bytes_.reserve(bytes_.size());
  for (const bool special_pass :
       {true, false}) {  // a special token's text means it, even if an ordinary one spells the same
    for (TokenId id = 0; id < vocab_size(); ++id) {
      if (is_special(id) == special_pass) ids_by_bytes_.try_emplace(bytes_[id], id);
    }
  }
  for (TokenId id = 0; id < vocab_size(); ++id) {
    if (bytes_[id].empty()) continue;
    switch (vocabulary_.types[id]) {
      case TokenType::kUserDefined:
        user_defined_.add(bytes_[id], id);
        [[fallthrough]];
      case TokenType::kControl:
      case TokenType::kUnknown:
        special_.add(bytes_[id], id);
        break;
      default:
        break;
    }
  }
}

absl::StatusOr<std::vector<TokenId>> VocabularyTokenizer::encode(std::string_view text, SpecialTokens special,
                                                                 const std::stop_token& stop) const {
  PKV_ASSIGN_OR_RETURN(auto encoded, encode_with_offsets(text, special, stop));
  return std::move(encoded.ids);
}

absl::StatusOr<EncodedText> VocabularyTokenizer::encode_with_offsets(std::string_view text, SpecialTokens special,
                                                                     const std::stop_token& stop) const {
  if (const auto invalid = find_invalid_utf8(text); invalid.has_value()) {
    return invalid_argument("invalid UTF-8 at byte ", *invalid);
  }
  if (text.size() > static_cast<size_t>(INT32_MAX)) return invalid_argument("text longer than 2 GiB");
  const TokenTrie& trie = special == SpecialTokens::kParse ? special_ : user_defined_;
  EncodedText encoded;
  size_t run_begin = 0;
  auto end_run = [&](size_t end) {
    if (end == run_begin) return absl::OkStatus();
    return encode_run(text.substr(run_begin, end - run_begin), static_cast<uint32_t>(run_begin), stop, encoded);
  };
  for (size_t at = 0; at < text.size();) {
    if (stop.stop_requested()) return cancelled_by_caller();
    const auto match = trie.longest_prefix(text.substr(at));
    if (!match.has_value()) {
      ++at;
      continue;
    }
    PKV_RETURN_IF_ERROR(end_run(at));
    encoded.ids.push_back(match->id);
    encoded.begins.push_back(static_cast<uint32_t>(at));
    at += match->bytes;
    run_begin = at;
  }
  PKV_RETURN_IF_ERROR(end_run(text.size()));
  return encoded;
}

std::string_view VocabularyTokenizer::token_bytes(TokenId id) const {
  PKV_CHECK(id >= 0 && id < vocab_size(), "token id out of range");
  return bytes_[id];
}

absl::StatusOr<std::string> VocabularyTokenizer::decode(std::span<const TokenId> ids,
                                                        const std::stop_token& stop) const {
  Detokenizer detokenizer(*this, /*skip_leading_space=*/true);
  std::string text;
  for (size_t i = 0; i < ids.size(); ++i) {
    if (stop.stop_requested()) return cancelled_by_caller();
    if (ids[i] < 0 || ids[i] >= vocab_size()) {
      return invalid_argument("token_ids[", i, "]: ", ids[i], " is not in the vocabulary of ", vocab_size());
    }
    text += detokenizer.push(ids[i]);
  }
  return text + detokenizer.finish();
}

bool VocabularyTokenizer::is_special(TokenId id) const {
  PKV_CHECK(id >= 0 && id < vocab_size(), "token id out of range");
  return vocabulary_.types[id] == TokenType::kControl;
}

std::optional<TokenId> VocabularyTokenizer::find_token(std::string_view text) const {
  const auto found = ids_by_bytes_.find(text);
  if (found == ids_by_bytes_.end()) return std::nullopt;
  return found->second;
}

}  // namespace pkv
