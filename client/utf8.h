// Where UTF-8 ends: texts have to be valid before they are put into a message.
#pragma once

#include <cstddef>
#include <string>

#include "absl/strings/string_view.h"

namespace pkv::client {

// Bytes of the character at the beginning of `text`, which is not empty; 0 where there is none (RFC 3629: no
// surrogates, shortest form).
size_t utf8_character_bytes(absl::string_view text);

// The first byte of `text` that belongs to no character, or npos.
size_t first_invalid_utf8(const std::string& text);

// `text` as a terminal may get it: control characters but line ends and tabs become spaces, so that an answer cannot
// steer it.
std::string for_terminal(std::string text);

}  // namespace pkv::client
