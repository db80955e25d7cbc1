// What Python's str can do, for filters and methods. All of it keeps the source of every byte.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "server/text/jinja/budget.h"
#include "server/text/jinja/text.h"

namespace pkv::jinja {

enum class Sides : uint8_t { kLeft, kRight, kBoth };
// Without the characters of `characters` at its ends; without white space where that is not given.
Text strip(const Text& text, const std::optional<Text>& characters, Sides sides, Budget& budget);

Text to_upper(const Text& text, Budget& budget);
Text to_lower(const Text& text, Budget& budget);  // a final sigma as any other
Text capitalize(const Text& text, Budget& budget);
Text title(const Text& text, Budget& budget);        // str.title: every run of letters
Text jinja_title(const Text& text, Budget& budget);  // the filter: what follows white space, -, (, {, [, <
bool is_upper(std::string_view text);
bool is_lower(std::string_view text);

// At most `count` times from the left; negative: always.
Text replace(const Text& text, const Text& from, const Text& to, int64_t count, Budget& budget);

// At `separator`, which is not empty, or runs of white space where it is not given; at most `count` times, negative:
// always.
std::vector<Text> split(const Text& text, const std::optional<Text>& separator, int64_t count, Budget& budget);
std::vector<Text> split_from_right(const Text& text, const std::optional<Text>& separator, int64_t count,
                                   Budget& budget);
std::vector<Text> split_lines(const Text& text, bool keep_ends, Budget& budget);

Text indent(const Text& text, const Text& indention, bool first, bool blank, Budget& budget);
// To `width` characters with spaces on the other side; kBoth: in the middle.
Text pad(const Text& text, int64_t width, char fill, Sides text_side, Budget& budget);

}  // namespace pkv::jinja
