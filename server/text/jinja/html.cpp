#include "server/text/jinja/html.h"

namespace pkv::jinja {
namespace {

std::string_view entity(char c) {
  switch (c) {
    case '&':
      return "&amp;";
    case '<':
      return "&lt;";
    case '>':
      return "&gt;";
    case '\'':
      return "&#39;";
    case '"':
      return "&#34;";
    default:
      return "";
  }
}

}  // namespace

void append_escaped(const Text& text, TextBuilder& out) {
  for (const Piece& piece : text.pieces()) {
    size_t plain = 0;
    for (size_t at = 0; at < piece.text.size(); ++at) {
      const std::string_view replacement = entity(piece.text[at]);
      if (replacement.empty()) continue;
      out.append(piece.text.substr(plain, at - plain), piece.source);
      out.append(replacement, piece.source);
      plain = at + 1;
    }
    out.append(piece.text.substr(plain), piece.source);
  }
}

}  // namespace pkv::jinja
