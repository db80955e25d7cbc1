// Characters of UTF-8 text as Python's str sees them: code points, white space, case. Text that is not valid UTF-8 is
// taken byte by byte where it is not.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace pkv::jinja {

struct Character {
  uint32_t code = 0;
  size_t bytes = 0;  // at least 1
};

// The first one of `text`, which must not be empty.
Character next_character(std::string_view text);
// The last one of `text`, which must not be empty.
Character last_character(std::string_view text);
void append_character(uint32_t code, std::string& out);

size_t count_characters(std::string_view text);
// The byte offset of character `index`; the text's size where there are fewer.
size_t character_offset(std::string_view text, size_t index);

bool is_space(uint32_t code);      // str.isspace: the property White_Space and U+001C to U+001F
bool is_printable(uint32_t code);  // str.isprintable, but for code points that Unicode has not assigned
bool is_cased(uint32_t code);      // has another case

// Appends the character in the other case, which may be several.
void append_lower(uint32_t code, std::string& out);
void append_upper(uint32_t code, std::string& out);

// `text` without white space at its end, or its beginning.
std::string_view strip_end(std::string_view text);
std::string_view strip_begin(std::string_view text);

}  // namespace pkv::jinja
