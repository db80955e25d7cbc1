// Counts columns and breaks lines.
#include "client/text_table.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "client/utf8.h"

namespace pkv::client {
namespace {

constexpr size_t kLeastLastColumn = 24;  // narrower than this a wrapped column is no help

using Ranges = std::pair<uint32_t, uint32_t>;
constexpr std::array<Ranges, 9> kWide{{{0x1100, 0x115F},
                                       {0x2E80, 0x303E},
                                       {0x3041, 0xA4CF},
                                       {0xAC00, 0xD7A3},
                                       {0xF900, 0xFAFF},
                                       {0xFE30, 0xFE6F},
                                       {0xFF00, 0xFF60},
                                       {0x1F300, 0x1FAFF},
                                       {0x20000, 0x3FFFD}}};
constexpr std::array<Ranges, 5> kNoWidth{
    {{0x0300, 0x036F}, {0x1AB0, 0x1AFF}, {0x20D0, 0x20FF}, {0xFE00, 0xFE0F}, {0xFE20, 0xFE2F}}};
// Zero-width and bidirectional controls, separators of lines, byte order mark.
constexpr std::array<Ranges, 6> kControls{
    {{0x80, 0x9F}, {0x061C, 0x061C}, {0x200B, 0x200F}, {0x2028, 0x202E}, {0x2060, 0x206F}, {0xFEFF, 0xFEFF}}};

template <size_t N>
bool is_in(const std::array<Ranges, N>& ranges, uint32_t code) {
  return std::any_of(ranges.begin(), ranges.end(),
                     [&](const Ranges& range) { return code >= range.first && code <= range.second; });
}

// Takes the character at the beginning of `text`; a byte that belongs to none is taken alone. Returns its code point.
uint32_t take_character(absl::string_view& text, absl::string_view& character) {
  const size_t length = utf8_character_bytes(text);
  character = text.substr(0, std::max<size_t>(length, 1));
  text.remove_prefix(character.size());
  if (length == 0) return 0;
  constexpr std::array<unsigned char, 5> kFirstBits{0, 0x7F, 0x1F, 0x0F, 0x07};
  uint32_t code = static_cast<unsigned char>(character[0]) & kFirstBits[length];
  for (size_t i = 1; i < length; ++i) code = (code << 6) | (static_cast<unsigned char>(character[i]) & 0x3F);
  return code;
}

// The longest beginning of `text` that fits, at least one character; its end is at a space where there is one.
size_t line_bytes(absl::string_view text, size_t width) {
  size_t used = 0, bytes = 0, at_space = 0;
  for (absl::string_view rest = text; !rest.empty();) {
    absl::string_view character;
    take_character(rest, character);
    used += display_width(character);
    if (used > width) {
      if (character == " ") return bytes;
      return std::max<size_t>(at_space > 0 ? at_space : bytes, bytes > 0 ? 1 : character.size());
    }
    if (character == " ") at_space = bytes;
    bytes += character.size();
  }
  return bytes;
}

std::string without_end_spaces(std::string line) {
  line.erase(line.find_last_not_of(' ') + 1);
  return line + "\n";
}

}  // namespace

size_t display_width(absl::string_view text) {
  size_t width = 0;
  while (!text.empty()) {
    absl::string_view character;
    const uint32_t code = take_character(text, character);
    width += is_in(kNoWidth, code) ? 0 : is_in(kWide, code) ? 2 : 1;
  }
  return width;
}

std::string one_line(absl::string_view text) {
  std::string line;
  while (!text.empty()) {
    absl::string_view character;
    const uint32_t code = take_character(text, character);
    if (code < 0x20 || code == 0x7F || is_in(kControls, code)) {
      line += ' ';
    } else {
      absl::StrAppend(&line, character);
    }
  }
  return line;
}

std::vector<std::string> wrapped(absl::string_view text, size_t width) {
  std::vector<std::string> lines;
  do {
    const size_t bytes = line_bytes(text, std::max<size_t>(width, 1));
    lines.emplace_back(absl::StripTrailingAsciiWhitespace(text.substr(0, bytes)));
    text.remove_prefix(bytes);
    if (!text.empty() && text[0] == ' ') text.remove_prefix(1);
  } while (!text.empty());
  return lines;
}

std::string padded(const std::string& text, size_t width) {
  const size_t used = display_width(text);
  return text + std::string(used < width ? width - used : 0, ' ');
}

std::string text_table(const TextTable& table) {
  std::vector<size_t> widths(table.rows[0].size());
  for (const auto& row : table.rows) {
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], display_width(row[i]));
  }
  size_t left = 0;  // of the last column
  for (size_t i = 0; i + 1 < widths.size(); ++i) left += widths[i] + 2;
  size_t last = widths.back();
  if (table.width > 0) last = std::min(last, std::max(kLeastLastColumn, table.width > left ? table.width - left : 0));
  std::string text;
  for (const auto& row : table.rows) {
    std::string line;
    for (size_t i = 0; i + 1 < row.size(); ++i) {
      const bool right = i < table.right.size() && table.right[i];
      const std::string space(widths[i] - display_width(row[i]), ' ');
      absl::StrAppend(&line, right ? space + row[i] : row[i] + space, "  ");
    }
    const bool right = table.right.size() >= row.size() && table.right[row.size() - 1];
    for (const std::string& part : wrapped(row.back(), last)) {
      text += without_end_spaces(line + (right ? std::string(last - display_width(part), ' ') : "") + part);
      line.assign(left, ' ');
    }
  }
  return text;
}

}  // namespace pkv::client
