#include "server/text/jinja/replaced.h"

#include "server/text/jinja/characters.h"

namespace pkv::jinja {

void append_replaced(const Text& text, absl::FunctionRef<std::string(uint32_t code)> replacement, TextBuilder& out) {
  out.budget().spend_bytes(4 * text.size());
  for (const Piece& piece : text.pieces()) {
    size_t plain = 0;
    for (size_t at = 0; at < piece.text.size();) {
      const Character character = next_character(piece.text.substr(at));
      const std::string other = replacement(character.code);
      if (!other.empty()) {
        out.append(piece.text.substr(plain, at - plain), piece.source);
        out.append(other, piece.source);
        plain = at + character.bytes;
      }
      at += character.bytes;
    }
    out.append(piece.text.substr(plain), piece.source);
  }
}

}  // namespace pkv::jinja
