#include "server/telemetry/escape.h"

#include <cstddef>
#include <cstdint>

#include "server/telemetry/utf8.h"

namespace pkv {
namespace {

void append_escaped(unsigned control, std::string& out) {
  constexpr std::string_view kHex = "0123456789abcdef";
  out.append("\\u00").append({kHex[control >> 4], kHex[control & 15]});
}

std::string escape(std::string_view text, bool quotes) {
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const Utf8Step step = next_utf8(text.substr(at));
    const size_t bytes = step.kind == Utf8Kind::kCharacter ? step.bytes : 0;
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
