// Turns one stream of token ids into text pieces that are always valid UTF-8: bytes of an unfinished character are held
// back until the rest of it comes. One object per stream.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "server/text/tokenizer.h"

namespace pkv {

class Detokenizer {
 public:
  // `skip_leading_space`: true at the beginning of a text, false where the stream continues one. Matters only to
  // tokenizers with adds_leading_space().
  explicit Detokenizer(const Tokenizer& tokenizer, bool skip_leading_space = false);

  // The text that became certain with this token; may be empty.
  std::string push(TokenId id);
  // What was held back, with U+FFFD for a character that never ended. Call once, at the end.
  std::string finish();

 private:
  const Tokenizer& tokenizer_;
  std::string pending_;  // an incomplete UTF-8 sequence, at most 3 bytes
  bool skip_leading_space_;
};

// Finds the first occurrence of any stop string in a growing text, holding back text that may be the beginning of one.
// First is the one that is complete first (of those the longest), so the result does not depend on how the text comes
// in pieces. Empty stop strings are ignored.
class StopMatcher {
 public:
  explicit StopMatcher(std::vector<std::string> stops);

  struct Result {
    std::string text;  // certain to be before any stop string
    int matched = -1;  // index of the stop string that ended the text
  };
  Result push(std::string_view piece);  // not after a match
  std::string finish();                 // what was held back

 private:
  // Knuth-Morris-Pratt: how many bytes of `text` the stream ends with, and where to go on after a mismatch.
  struct Stop {
    std::string text;
    std::vector<uint32_t> fallback;  // per matched length: the longest shorter one that also fits
    uint32_t matched = 0;
  };
  std::vector<Stop> stops_;
  std::string held_;
};

}  // namespace pkv
