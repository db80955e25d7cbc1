#include "server/telemetry/escape.h"

#include <cstddef>
#include <cstdint>

namespace pkv {
namespace {

// Bytes of the well-formed UTF-8 character at `text[at]` (RFC 3629: no overlong forms, no surrogates); 0: there is
// none.
size_t character_bytes(std::string_view text, size_t at) {
  const auto byte = [&](size_t offset) -> unsigned {
    return at + offset < text.size() ? static_cast<uint8_t>(text[at + offset]) : 0u;
  };
  const auto continues = [&](size_t offset) { return (byte(offset) & 0xC0u) == 0x80u; };
  const unsigned lead = byte(0), second = byte(1);
  if (lead < 0x80) return 1;
  if (lead >= 0xC2 && lead <= 0xDF) return continues(1) ? 2 : 0;
  if (lead >= 0xE0 && lead <= 0xEF) {
    const bool excluded = (lead == 0xE0 && second < 0xA0) || (lead == 0xED && second >= 0xA0);
    return !excluded && continues(1) && continues(2) ? 3 : 0;
  }
  const bool excluded = (lead == 0xF0 && second < 0x90) || (lead == 0xF4 && second >= 0x90);
  if (lead < 0xF0 || lead > 0xF4 || excluded) return 0;
  return continues(1) && continues(2) && continues(3) ? 4 : 0;
}

void append_escaped(unsigned control, std::string& out) {
  constexpr std::string_view kHex = "0123456789abcdef";
  out.append("\\u00").append({kHex[control >> 4], kHex[control & 15]});
}

std::string escape(std::string_view text, bool quotes) {
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const size_t bytes = character_bytes(text, at);
    const auto first = static_cast<uint8_t>(text[at]);
    // U+0080 to U+009F are C2 80 to C2 9F.
    const bool c1 = bytes == 2 && first == 0xC2 && static_cast<uint8_t>(text[at + 1]) < 0xA0;
    if (bytes == 0) {
      out.append("\\ufffd");
    } else if (first < 0x20 || first == 0x7F || c1) {
      append_escaped(c1 ? static_cast<uint8_t>(text[at + 1]) : first, out);
    } else {
      if (quotes && (first == '"' || first == '\\')) out.push_back('\\');
      out.append(text.substr(at, bytes));
    }
    at += bytes == 0 ? 1 : bytes;
  }
  return out;
}

}  // namespace

std::string json_escape(std::string_view text) { return escape(text, /*quotes=*/true); }
std::string escape_controls(std::string_view text) { return escape(text, /*quotes=*/false); }

}  // namespace pkv
