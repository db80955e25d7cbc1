#include "server/telemetry/escape.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

#include "server/telemetry/utf8.h"

namespace pkv {
namespace {

struct Range {
  uint32_t first, last;
};

// In ascending order: controls, line and paragraph separator, annotations, and what the Unicode standard calls
// Default_Ignorable_Code_Point (DerivedCoreProperties.txt), of which bidirectional controls and tags are part.
constexpr std::array kUnseen = {
    Range{0x0000, 0x001F},   Range{0x007F, 0x009F},   Range{0x00AD, 0x00AD},   Range{0x034F, 0x034F},
    Range{0x061C, 0x061C},   Range{0x115F, 0x1160},   Range{0x17B4, 0x17B5},   Range{0x180B, 0x180F},
    Range{0x200B, 0x200F},   Range{0x2028, 0x202E},   Range{0x2060, 0x206F},   Range{0x3164, 0x3164},
    Range{0xFE00, 0xFE0F},   Range{0xFEFF, 0xFEFF},   Range{0xFFA0, 0xFFA0},   Range{0xFFF0, 0xFFFB},
    Range{0x1BCA0, 0x1BCA3}, Range{0x1D173, 0x1D17A}, Range{0xE0000, 0xE0FFF},
};

bool is_unseen(uint32_t code) {
  const auto* range = std::lower_bound(kUnseen.begin(), kUnseen.end(), code,
                                       [](Range row, uint32_t value) { return row.last < value; });
  return range != kUnseen.end() && range->first <= code;
}

// Of one character of well-formed UTF-8.
uint32_t code_point(std::string_view character) {
  const auto lead = static_cast<uint8_t>(character[0]);
  if (character.size() == 1) return lead;
  uint32_t code = lead & (0x7F >> character.size());
  for (const char byte : character.substr(1)) code = code << 6 | (static_cast<uint8_t>(byte) & 0x3F);
  return code;
}

void append_unit(uint32_t unit, std::string& out) {
  constexpr std::string_view kHex = "0123456789abcdef";
  out.append("\\u");
  for (int shift = 12; shift >= 0; shift -= 4) out.push_back(kHex[unit >> shift & 15]);
}

// As JSON has it: beyond U+FFFF a pair of surrogates.
void append_escaped(uint32_t code, std::string& out) {
  if (code < 0x10000) return append_unit(code, out);
  append_unit(0xD800 + ((code - 0x10000) >> 10), out);
  append_unit(0xDC00 + (code & 0x3FF), out);
}

std::string escape(std::string_view text, bool quotes) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const Utf8Step step = next_utf8(text);
    const bool valid = step.kind == Utf8Kind::kCharacter;
    const std::string_view character = text.substr(0, valid ? step.bytes : 1);
    text.remove_prefix(character.size());
    if (!valid) {
      out.append("\\ufffd");
    } else if (const uint32_t code = code_point(character); is_unseen(code)) {
      append_escaped(code, out);
    } else {
      if (quotes && (code == '"' || code == '\\')) out.push_back('\\');
      out.append(character);
    }
  }
  return out;
}

}  // namespace

std::string json_escape(std::string_view text) { return escape(text, /*quotes=*/true); }
std::string escape_controls(std::string_view text) { return escape(text, /*quotes=*/false); }

}  // namespace pkv
