#include "server/text/jinja/characters.h"

#include <algorithm>
#include <iterator>

#include "server/text/jinja/character_tables.h"

namespace pkv::jinja {
namespace {

bool continues(char c) { return (static_cast<uint8_t>(c) & 0xC0) == 0x80; }

// Bytes of the character that a lead byte announces; 0: not a lead byte.
size_t announced_bytes(uint8_t lead) {
  if (lead < 0x80) return 1;
  if (lead < 0xC2) return 0;
  if (lead < 0xE0) return 2;
  if (lead < 0xF0) return 3;
  return lead < 0xF5 ? 4 : 0;
}

template <size_t N>
const CaseRange* find_range(const CaseRange (&ranges)[N], uint32_t code) {
  const auto* found = std::lower_bound(std::begin(ranges), std::end(ranges), code,
                                       [](const CaseRange& range, uint32_t c) { return range.last < c; });
  if (found == std::end(ranges) || code < found->first || (code - found->first) % found->step != 0) return nullptr;
  return found;
}

template <size_t N>
void append_mapped(const CaseRange (&ranges)[N], uint32_t code, std::string& out) {
  const CaseRange* range = find_range(ranges, code);
  append_character(range == nullptr ? code : static_cast<uint32_t>(static_cast<int32_t>(code) + range->delta), out);
}

}  // namespace

Character next_character(std::string_view text) {
  const auto lead = static_cast<uint8_t>(text[0]);
  const size_t bytes = announced_bytes(lead);
  if (bytes == 1) return {lead, 1};
  if (bytes == 0 || bytes > text.size()) return {lead, 1};
  uint32_t code = lead & (0x7Fu >> bytes);
  for (size_t i = 1; i < bytes; ++i) {
    if (!continues(text[i])) return {lead, 1};
    code = code << 6 | (static_cast<uint8_t>(text[i]) & 0x3Fu);
  }
  return {code, bytes};
}

Character last_character(std::string_view text) {
  size_t begin = text.size() - 1;
  while (begin > 0 && text.size() - begin < 4 && continues(text[begin])) --begin;
  const Character character = next_character(text.substr(begin));
  if (begin + character.bytes == text.size()) return character;
  return {static_cast<uint8_t>(text.back()), 1};
}

void append_character(uint32_t code, std::string& out) {
  if (code < 0x80) {
    out += static_cast<char>(code);
    return;
  }
  if (code < 0x800) {
    out += static_cast<char>(0xC0 | code >> 6);
  } else {
    if (code < 0x10000) {
      out += static_cast<char>(0xE0 | code >> 12);
    } else {
      out += static_cast<char>(0xF0 | code >> 18);
      out += static_cast<char>(0x80 | (code >> 12 & 0x3F));
    }
    out += static_cast<char>(0x80 | (code >> 6 & 0x3F));
  }
  out += static_cast<char>(0x80 | (code & 0x3F));
}

size_t count_characters(std::string_view text) {
  size_t count = 0;
  for (size_t at = 0; at < text.size(); at += next_character(text.substr(at)).bytes) ++count;
  return count;
}

size_t character_offset(std::string_view text, size_t index) {
  size_t at = 0;
  for (; index > 0 && at < text.size(); --index) at += next_character(text.substr(at)).bytes;
  return at;
}

bool is_space(uint32_t code) {
  return (code >= 0x09 && code <= 0x0D) || (code >= 0x1C && code <= 0x20) || code == 0x85 || code == 0xA0 ||
         code == 0x1680 || (code >= 0x2000 && code <= 0x200A) || code == 0x2028 || code == 0x2029 || code == 0x202F ||
         code == 0x205F || code == 0x3000;
}

bool is_printable(uint32_t code) {
  const auto* found = std::lower_bound(std::begin(kNotPrintable), std::end(kNotPrintable), code,
                                       [](const CodeRange& range, uint32_t c) { return range.last < c; });
  return found == std::end(kNotPrintable) || code < found->first;
}

bool is_cased(uint32_t code) { return find_range(kToLower, code) != nullptr || find_range(kToUpper, code) != nullptr; }

void append_lower(uint32_t code, std::string& out) {
  if (code == 0x130) {  // capital I with a dot: the only one that becomes two
    out += "i\xCC\x87";
    return;
  }
  append_mapped(kToLower, code, out);
}

void append_upper(uint32_t code, std::string& out) {
  const auto* found = std::lower_bound(std::begin(kToUpperLong), std::end(kToUpperLong), code,
                                       [](const LongUpper& entry, uint32_t c) { return entry.code < c; });
  if (found != std::end(kToUpperLong) && found->code == code) {
    out += found->upper;
    return;
  }
  append_mapped(kToUpper, code, out);
}

std::string_view strip_end(std::string_view text) {
  while (!text.empty()) {
    const Character last = last_character(text);
    if (!is_space(last.code)) break;
    text.remove_suffix(last.bytes);
  }
  return text;
}

std::string_view strip_begin(std::string_view text) {
  while (!text.empty()) {
    const Character first = next_character(text);
    if (!is_space(first.code)) break;
    text.remove_prefix(first.bytes);
  }
  return text;
}

}  // namespace pkv::jinja
