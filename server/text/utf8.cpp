#include "server/text/utf8.h"

namespace pkv {
namespace {

uint32_t code_point(std::string_view character) {
  const auto lead = static_cast<uint8_t>(character[0]);
  if (character.size() == 1) return lead;
  uint32_t code = lead & (0x7Fu >> character.size());
  for (const char c : character.substr(1)) code = code << 6 | (static_cast<uint8_t>(c) & 0x3Fu);
  return code;
}

// The property White_Space, and U+001C..U+001F, which Python's str.strip takes too.
bool is_whitespace(uint32_t code) {
  return (code >= 0x09 && code <= 0x0D) || (code >= 0x1C && code <= 0x20) || code == 0x85 || code == 0xA0 ||
         code == 0x1680 || (code >= 0x2000 && code <= 0x200A) || code == 0x2028 || code == 0x2029 || code == 0x202F ||
         code == 0x205F || code == 0x3000;
}

}  // namespace

std::string_view append_valid_utf8(std::string_view text, std::string& out) {
  while (!text.empty()) {
    const Utf8Step step = next_utf8(text);
    if (step.kind == Utf8Kind::kTruncated) break;
    out += step.kind == Utf8Kind::kCharacter ? text.substr(0, step.bytes) : kReplacementCharacter;
    text.remove_prefix(step.bytes);
  }
  return text;
}

std::string_view strip_whitespace(std::string_view text) {
  while (!text.empty()) {
    const size_t bytes = next_utf8(text).bytes;
    if (!is_whitespace(code_point(text.substr(0, bytes)))) break;
    text.remove_prefix(bytes);
  }
  while (!text.empty()) {
    size_t begin = text.size() - 1;
    while (begin > 0 && (static_cast<uint8_t>(text[begin]) & 0xC0) == 0x80) --begin;
    if (!is_whitespace(code_point(text.substr(begin)))) break;
    text.remove_suffix(text.size() - begin);
  }
  return text;
}

}  // namespace pkv
