// Finds which of many fixed strings stands at a place of a text, the longest first, in time of its length.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "server/text/tokenizer.h"

namespace pkv {

class TokenTrie {
 public:
  // `text` must not be empty. The first id of a text that is added twice stays.
  void add(std::string_view text, TokenId id);
  std::optional<SpecialToken> longest_prefix(std::string_view text) const;

 private:
  static constexpr TokenId kNone = -1;
  static uint64_t edge(uint32_t node, char byte) { return uint64_t{node} << 8 | static_cast<uint8_t>(byte); }

  std::vector<TokenId> ends_ = {kNone};               // per node: the token that ends there
  absl::flat_hash_map<uint64_t, uint32_t> children_;  // (node, byte) -> node
  bool first_bytes_[256] = {};                        // most places of a text are refused here
};

}  // namespace pkv
