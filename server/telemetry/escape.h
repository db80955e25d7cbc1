// Text from outside made safe for a line of a log: nothing in it can end the line, steer a terminal, show it in another
// order than it has, hide a part of it or break JSON.
#pragma once

#include <string>
#include <string_view>

namespace pkv {

// `text` as the inside of a JSON string: quotes and backslashes escaped; control characters (C0, DEL, C1), line
// separators and what reorders text or is not to be seen as \uXXXX, in pairs beyond U+FFFF; one \ufffd for every byte
// that is not part of well-formed UTF-8.
std::string json_escape(std::string_view text);

// The same with quotes and backslashes as they are: for sentences that are read by people.
std::string escape_controls(std::string_view text);

}  // namespace pkv
