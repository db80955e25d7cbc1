// Streams of tokens to text that is valid at every moment, and the search for stop strings in it.
#include "server/text/detokenizer.h"

#include <algorithm>
#include <utility>

#include "server/text/utf8.h"

namespace pkv {

Detokenizer::Detokenizer(const Tokenizer& tokenizer, bool skip_leading_space)
    : tokenizer_(tokenizer), skip_leading_space_(skip_leading_space && tokenizer.adds_leading_space()) {}

std::string Detokenizer::push(TokenId id) {
  std::string_view bytes = tokenizer_.token_bytes(id);
  if (skip_leading_space_ && !bytes.empty()) {
    if (bytes.front() == ' ' && !tokenizer_.is_special(id)) bytes.remove_prefix(1);
    skip_leading_space_ = false;
  }
  pending_ += bytes;
  std::string text;
  pending_ = std::string(append_valid_utf8(pending_, text));
  return text;
}

std::string Detokenizer::finish() {
  if (pending_.empty()) return "";
  pending_.clear();
  return std::string(kReplacementCharacter);
}

StopMatcher::StopMatcher(std::vector<std::string> stops) {
  for (std::string& text : stops) {
    Stop stop{.text = std::move(text), .fallback = {}};
    stop.fallback.assign(stop.text.size() + 1, 0);
    for (uint32_t length = 2, shorter = 0; length <= stop.text.size(); ++length) {
      const char byte = stop.text[length - 1];
      while (shorter > 0 && stop.text[shorter] != byte) shorter = stop.fallback[shorter];
      if (stop.text[shorter] == byte) ++shorter;
      stop.fallback[length] = shorter;
    }
    stops_.push_back(std::move(stop));
  }
}

StopMatcher::Result StopMatcher::push(std::string_view piece) {
  Result result;
  for (size_t i = 0; i < piece.size(); ++i) {
    held_ += piece[i];
    for (size_t s = 0; s < stops_.size(); ++s) {
      Stop& stop = stops_[s];
      if (stop.text.empty()) continue;
      while (stop.matched > 0 && stop.text[stop.matched] != piece[i]) stop.matched = stop.fallback[stop.matched];
      if (stop.text[stop.matched] == piece[i]) ++stop.matched;
      const bool longer = result.matched < 0 || stop.text.size() > stops_[result.matched].text.size();
      if (stop.matched == stop.text.size() && longer) result.matched = static_cast<int>(s);
    }
    if (result.matched >= 0) {
      result.text = held_.substr(0, held_.size() - stops_[result.matched].text.size());
      held_.clear();
      return result;
    }
  }
  uint32_t keep = 0;
  for (const Stop& stop : stops_) keep = std::max(keep, stop.matched);
  result.text = held_.substr(0, held_.size() - keep);
  held_.erase(0, held_.size() - keep);
  return result;
}

std::string StopMatcher::finish() { return std::exchange(held_, std::string()); }

}  // namespace pkv
