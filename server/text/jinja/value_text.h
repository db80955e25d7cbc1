// Values as text: str(), repr(), JSON, and numbers read from text. Text from strings keeps its source.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "server/text/jinja/value.h"

namespace pkv::jinja {

// str() and repr(). FAILED_PRECONDITION for what has no text of its own: functions, generators.
absl::Status append_text(const Value& value, TextBuilder& out);
absl::Status append_repr(const Value& value, TextBuilder& out);
absl::StatusOr<Text> to_text(const Value& value, Budget& budget);

std::string integer_text(int64_t value);
std::string real_text(double value);  // the shortest that reads back the same, laid out as Python does

// As int() and float() read strings; none where they would not, or the integer is not one of 64 bits.
std::optional<int64_t> parse_integer(std::string_view text, int base);
std::optional<double> parse_real(std::string_view text);

// As json.dumps writes.
struct JsonStyle {
  bool ascii = false;
  bool sort_keys = false;
  std::optional<std::string> indent;
  std::string item_separator = ", ";
  std::string key_separator = ": ";
};
absl::Status append_json(const Value& value, const JsonStyle& style, TextBuilder& out);

}  // namespace pkv::jinja
