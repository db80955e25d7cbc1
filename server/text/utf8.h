// What texts and tokens need of UTF-8 beside checking it: repair.
#pragma once

#include <string>
#include <string_view>

#include "server/telemetry/utf8.h"

namespace pkv {

// Appends `text` to `out` with one U+FFFD for every maximal invalid part, and returns the incomplete character at its
// end (at most 3 bytes), which is not appended.
std::string_view append_valid_utf8(std::string_view text, std::string& out);

inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";  // U+FFFD

}  // namespace pkv
