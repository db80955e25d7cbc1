// Text in columns for terminals: how wide a text is, lines of a width, aligned tables.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace pkv::client {

// Columns that `text`, one line, takes on a terminal: wide characters two, combining marks none.
size_t display_width(absl::string_view text);

// `text` as a terminal may get it, on one line: control characters, bidirectional controls and bytes that are no UTF-8
// become spaces.
std::string one_line(absl::string_view text);

// Lines of at most `width` columns, broken at spaces and, where a word is longer, within it. At least one line.
std::vector<std::string> wrapped(absl::string_view text, size_t width);

// `text` with spaces behind it up to `width` columns.
std::string padded(const std::string& text, size_t width);

struct TextTable {
  std::vector<std::vector<std::string>> rows;  // the first has the headings
  std::vector<bool> right;                     // columns that are aligned on the right; missing: none
  size_t width = 0;                            // 0: any; else the last column is broken into lines to keep to it
};
std::string text_table(const TextTable& table);

}  // namespace pkv::client
