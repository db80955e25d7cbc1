// Well-formed UTF-8 as the Unicode standard defines it (table 3-7): no overlong forms, no surrogates, nothing above
// U+10FFFF.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace pkv {

enum class Utf8Kind : uint8_t { kCharacter, kInvalid, kTruncated };

struct Utf8Step {
  Utf8Kind kind = Utf8Kind::kInvalid;
  // Bytes of the character, or of the maximal part of one that is invalid (at least 1) or that the text ended in.
  size_t bytes = 0;
};

// What stands at the beginning of `text`, which must not be empty.
Utf8Step next_utf8(std::string_view text);

// Byte offset of the first thing that is not a whole character; none where `text` is valid.
std::optional<size_t> find_invalid_utf8(std::string_view text);

}  // namespace pkv
