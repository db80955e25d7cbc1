// Well-formed UTF-8 as the Unicode standard defines it (table 3-7): no overlong forms, no surrogates, nothing above
// U+10FFFF.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
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

// Appends `text` to `out` with one U+FFFD for every maximal invalid part, and returns the incomplete character at its
// end (at most 3 bytes), which is not appended.
std::string_view append_valid_utf8(std::string_view text, std::string& out);

// Removes white space at both ends, by Unicode's and Python's definition of it (str.strip). `text` must be valid.
std::string_view strip_whitespace(std::string_view text);

inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";  // U+FFFD

}  // namespace pkv
