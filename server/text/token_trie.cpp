// A trie whose edges are in one hash table.
#include "server/text/token_trie.h"

#include "kernels/check.h"

namespace pkv {

void TokenTrie::add(std::string_view text, TokenId id) {
  PKV_CHECK(!text.empty(), "an empty string matches everywhere");
  first_bytes_[static_cast<uint8_t>(text[0])] = true;
  uint32_t node = 0;
  for (const char byte : text) {
    const auto [child, is_new] = children_.try_emplace(edge(node, byte), static_cast<uint32_t>(ends_.size()));
    if (is_new) ends_.push_back(kNone);
    node = child->second;
  }
  if (ends_[node] == kNone) ends_[node] = id;
}

std::optional<SpecialToken> TokenTrie::longest_prefix(std::string_view text) const {
  if (text.empty() || !first_bytes_[static_cast<uint8_t>(text[0])]) return std::nullopt;
  std::optional<SpecialToken> best;
  uint32_t node = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto child = children_.find(edge(node, text[i]));
    if (child == children_.end()) break;
    node = child->second;
    if (ends_[node] != kNone) best = SpecialToken{ends_[node], i + 1};
  }
  return best;
}

}  // namespace pkv
