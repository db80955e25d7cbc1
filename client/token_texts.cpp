// Asks for single tokens, then for the few neighbours that may be one character.
#include "client/token_texts.h"

#include <algorithm>
#include <map>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "client/utf8.h"

namespace pkv::client {
namespace {

constexpr size_t kMostTokensOfACharacter = 4;  // a token has a byte at least
constexpr absl::string_view kReplacement = "\xEF\xBF\xBD";

using Ids = std::vector<uint32_t>;
using Texts = std::map<Ids, std::string>;

bool is_partial(const std::string& text) { return absl::StrContains(text, kReplacement); }

// The text of every key of `texts`; false where the answer cannot be taken apart.
bool ask(Texts& texts, uint32_t separator, const Detokenize& detokenize) {
  if (texts.empty()) return true;
  Ids all{separator};
  for (const auto& [ids, text] : texts) {
    all.insert(all.end(), ids.begin(), ids.end());
    all.push_back(separator);
  }
  const std::optional<std::string> answer = detokenize(all);
  if (!answer) return false;
  const std::vector<std::string> parts = absl::StrSplit(*answer, kTokenSeparator);
  if (parts.size() != texts.size() + 2) return false;
  size_t next = 1;  // in front of the first separator is nothing
  for (auto& [ids, text] : texts) text = parts[next++];
  return true;
}

// Lists of tokens that may be one character: those from `begin` on while all of them are parts.
std::vector<Ids> windows(const Ids& ids, const std::vector<std::string>& pieces, size_t begin) {
  std::vector<Ids> found;
  for (size_t end = begin + 1; end < ids.size() && end < begin + kMostTokensOfACharacter && is_partial(pieces[end]);
       ++end) {
    found.emplace_back(ids.begin() + static_cast<ptrdiff_t>(begin), ids.begin() + static_cast<ptrdiff_t>(end) + 1);
  }
  return found;
}

// Does `text` end within a character that more bytes could complete?
bool ends_within_character(absl::string_view text) {
  while (!text.empty()) {
    const size_t length = utf8_character_bytes(text);
    if (length > 0) {
      text.remove_prefix(length);
      continue;
    }
    const auto first = static_cast<unsigned char>(text[0]);
    const size_t whole = first >= 0xF0 && first < 0xF5 ? 4 : first >= 0xE0 ? 3 : first >= 0xC2 ? 2 : 0;
    const bool continued = first < 0xF5 && std::all_of(text.begin() + 1, text.end(), [](char c) {
                             return (static_cast<unsigned char>(c) & 0xC0) == 0x80;
                           });
    if (continued && text.size() < whole) return true;
    text.remove_prefix(1);
  }
  return false;
}

}  // namespace

std::vector<std::string> token_texts(const Ids& ids, uint32_t separator, const Detokenize& detokenize) {
  Texts single;
  for (const uint32_t id : ids) {
    if (id != separator) single[{id}];
  }
  if (!ask(single, separator, detokenize)) return {};
  single[{separator}] = std::string(1, kTokenSeparator);
  std::vector<std::string> pieces;
  for (const uint32_t id : ids) pieces.push_back(single.at({id}));

  Texts joined;
  for (size_t i = 0; i < ids.size(); ++i) {
    if (!is_partial(pieces[i])) continue;
    for (Ids& window : windows(ids, pieces, i)) joined[std::move(window)];
  }
  if (!ask(joined, separator, detokenize)) return {};
  for (size_t i = 0; i < ids.size(); ++i) {
    if (!is_partial(pieces[i])) continue;
    for (const Ids& window : windows(ids, pieces, i)) {
      if (is_partial(joined.at(window))) continue;
      pieces[i] = joined.at(window);
      for (size_t rest = 1; rest < window.size(); ++rest) pieces[i + rest].clear();
      break;
    }
  }
  return pieces;
}

std::vector<std::string> whole_characters(std::vector<std::string> bytes) {
  for (size_t i = 0; i < bytes.size(); ++i) {
    for (size_t next = i + 1; next < bytes.size() && next < i + kMostTokensOfACharacter; ++next) {
      if (!ends_within_character(bytes[i])) break;
      bytes[i] += bytes[next];
      bytes[next].clear();
    }
    while (i + 1 < bytes.size() && bytes[i + 1].empty()) ++i;
  }
  return bytes;
}

v1::TokenizeRequest tokenize_request(const v1::GenerateRequest& request) {
  v1::TokenizeRequest tokenize;
  tokenize.set_model(request.model());
  if (request.has_chat()) {
    *tokenize.mutable_chat() = request.chat();
  } else {
    tokenize.set_text(request.prompt());
  }
  return tokenize;
}

std::vector<std::string> fetch_token_texts(Client& client, const v1::GenerateRequest& request, std::string& why) {
  const auto prompt = client.tokenize(tokenize_request(request));
  v1::TokenizeRequest separator;
  separator.set_model(request.model());
  separator.set_text(std::string(1, kTokenSeparator));
  separator.set_add_special_tokens(false);
  const auto separators = prompt ? client.tokenize(separator) : prompt;
  if (!separators || separators->token_ids().empty()) {
    why = separators ? "the model has no token to tell others apart with" : separators.error.describe();
    return {};
  }
  Ids ids(prompt->token_ids().begin(), prompt->token_ids().end());
  if (request.has_truncate_prompt_tokens() && request.truncate_prompt_tokens() < ids.size())
    ids.erase(ids.begin(), ids.end() - static_cast<ptrdiff_t>(request.truncate_prompt_tokens()));
  why = "the tokens' texts cannot be told apart";
  // SentencePiece puts a space in front of a text, so the separator is the last token.
  return token_texts(ids, *separators->token_ids().rbegin(), [&](const Ids& list) -> std::optional<std::string> {
    v1::DetokenizeRequest detokenize;
    detokenize.set_model(request.model());
    *detokenize.mutable_token_ids() = {list.begin(), list.end()};
    const auto text = client.detokenize(detokenize);
    if (text) return text->text();
    why = text.error.describe();
    return std::nullopt;
  });
}

}  // namespace pkv::client
