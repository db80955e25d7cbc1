// Case.
#include "server/text/jinja/characters.h"
#include "server/text/jinja/string_functions.h"

namespace pkv::jinja {
namespace {

enum class Case : uint8_t { kUpper, kLower, kTitle };

// Upper case of the first letter of a word: of characters that become several, only the first is a capital.
void append_title(uint32_t code, std::string& out) {
  std::string upper;
  append_upper(code, upper);
  const size_t first = next_character(upper).bytes;
  out += upper.substr(0, first);
  for (size_t at = first; at < upper.size();) {
    const Character character = next_character(std::string_view(upper).substr(at));
    append_lower(character.code, out);
    at += character.bytes;
  }
}

// Every character in the case that `choose(code)` says.
template <typename Choose>
Text map_case(const Text& text, Budget& budget, Choose choose) {
  TextBuilder out(budget);
  budget.spend_bytes(4 * text.size());
  for (const Piece& piece : text.pieces()) {
    std::string mapped;
    for (size_t at = 0; at < piece.text.size();) {
      const Character character = next_character(piece.text.substr(at));
      switch (choose(character.code)) {
        case Case::kUpper:
          append_upper(character.code, mapped);
          break;
        case Case::kLower:
          append_lower(character.code, mapped);
          break;
        case Case::kTitle:
          append_title(character.code, mapped);
          break;
      }
      at += character.bytes;
    }
    out.append(mapped, piece.source);
  }
  return out.take();
}

// Whether the text has letters with two cases, and all of them in this one.
bool all_cased(std::string_view text, bool upper) {
  bool any = false;
  for (size_t at = 0; at < text.size();) {
    const Character character = next_character(text.substr(at));
    std::string same, other;
    append_upper(character.code, upper ? same : other);
    append_lower(character.code, upper ? other : same);
    if (same != other) {
      if (text.substr(at, character.bytes) != same) return false;
      any = true;
    }
    at += character.bytes;
  }
  return any;
}

}  // namespace

Text to_upper(const Text& text, Budget& budget) {
  return map_case(text, budget, [](uint32_t) { return Case::kUpper; });
}

Text to_lower(const Text& text, Budget& budget) {
  return map_case(text, budget, [](uint32_t) { return Case::kLower; });
}

Text capitalize(const Text& text, Budget& budget) {
  return map_case(text, budget, [first = true](uint32_t) mutable {
    return std::exchange(first, false) ? Case::kTitle : Case::kLower;
  });
}

Text title(const Text& text, Budget& budget) {
  return map_case(text, budget, [inside = false](uint32_t code) mutable {
    return std::exchange(inside, is_cased(code)) ? Case::kLower : Case::kTitle;
  });
}

Text jinja_title(const Text& text, Budget& budget) {
  return map_case(text, budget, [inside = false](uint32_t code) mutable {
    const bool between = is_space(code) || (code < 0x80 && std::string_view("-({[<").find(static_cast<char>(code)) !=
                                                               std::string_view::npos);
    return std::exchange(inside, !between) ? Case::kLower : Case::kUpper;
  });
}

bool is_upper(std::string_view text) { return all_cased(text, true); }
bool is_lower(std::string_view text) { return all_cased(text, false); }

}  // namespace pkv::jinja
