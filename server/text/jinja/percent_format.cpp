// "%s has %d" % (name, 3): the conversions s, r, d, i, f, x, X, with flags, width, precision and names.
#include <cmath>

#include "absl/strings/str_format.h"
#include "kernels/status_macros.h"
#include "server/text/jinja/characters.h"
#include "server/text/jinja/operations.h"
#include "server/text/jinja/value_text.h"
#include "server/text/jinja/words.h"

namespace pkv::jinja {
namespace {

struct Conversion {
  std::string name;
  bool left = false, zero = false, plus = false;
  size_t width = 0;
  std::optional<size_t> precision;
  char letter = 0;
};

constexpr size_t kMaxWidth = 10000;

bool read_number(std::string_view text, size_t& at, size_t& number) {
  while (at < text.size() && text[at] >= '0' && text[at] <= '9') {
    number = number * 10 + static_cast<size_t>(text[at++] - '0');
    if (number > kMaxWidth) return false;
  }
  return true;
}

// Reads what follows a % at `at`, and leaves `at` behind it.
absl::StatusOr<Conversion> read_conversion(std::string_view text, size_t& at) {
  Conversion conversion;
  const absl::Status bad = template_error("unsupported or incomplete format");
  if (at < text.size() && text[at] == '(') {
    const size_t close = text.find(')', at);
    if (close == std::string_view::npos) return bad;
    conversion.name = text.substr(at + 1, close - at - 1);
    at = close + 1;
  }
  for (; at < text.size() && std::string_view("-0+").find(text[at]) != std::string_view::npos; ++at) {
    conversion.left |= text[at] == '-';
    conversion.zero |= text[at] == '0';
    conversion.plus |= text[at] == '+';
  }
  if (!read_number(text, at, conversion.width)) return bad;
  if (at < text.size() && text[at] == '.') {
    ++at;
    conversion.precision = 0;
    if (!read_number(text, at, *conversion.precision)) return bad;
  }
  if (at == text.size()) return bad;
  conversion.letter = text[at++];
  return conversion;
}

absl::StatusOr<Text> number_text(const Conversion& conversion, const Value& value) {
  const auto real = value.as_real();
  if (!real.has_value()) {
    return template_error("%", std::string(1, conversion.letter), " format: a number is required, not ", value.type());
  }
  std::string text;
  if (conversion.letter == 'f') {
    text = absl::StrFormat("%.*f", static_cast<int>(conversion.precision.value_or(6)), std::fabs(*real));
  } else {
    auto integer = value.as_integer();
    if (!integer.has_value() && std::fabs(*real) < 9e18) integer = static_cast<int64_t>(*real);
    if (!integer.has_value() || *integer == INT64_MIN) return template_error("a number too large for a format");
    const auto size = static_cast<uint64_t>(std::abs(*integer));
    text = conversion.letter == 'x'   ? absl::StrFormat("%x", size)
           : conversion.letter == 'X' ? absl::StrFormat("%X", size)
                                      : words(size);
  }
  const std::string sign = std::signbit(*real) && *real != 0 ? "-" : conversion.plus ? "+" : "";
  if (conversion.zero && !conversion.left && text.size() + sign.size() < conversion.width) {
    text.insert(0, std::string(conversion.width - text.size() - sign.size(), '0'));
  }
  return Text(sign + text);
}

absl::StatusOr<Text> convert(const Conversion& conversion, const Value& value, Budget& budget) {
  TextBuilder out(budget);
  switch (conversion.letter) {
    case 's':
      PKV_RETURN_IF_ERROR(append_text(value, out));
      break;
    case 'r':
      PKV_RETURN_IF_ERROR(append_repr(value, out));
      break;
    case 'd':
    case 'i':
    case 'f':
    case 'x':
    case 'X':
      return number_text(conversion, value);
    default:
      return template_error("unsupported format character '", std::string(1, conversion.letter), "'");
  }
  Text text = out.take();
  if (!conversion.precision.has_value()) return text;
  return text.substr(0, character_offset(text.bytes(), *conversion.precision));
}

}  // namespace

absl::StatusOr<Value> percent_format(const Text& format, const Arguments& arguments, Budget& budget) {
  const std::string_view bytes = format.bytes();
  TextBuilder out(budget);
  size_t next = 0;
  for (size_t at = 0; at < bytes.size() && !budget.exhausted();) {
    const size_t percent = std::min(bytes.find('%', at), bytes.size());
    out.append(format, at, percent);
    if (percent == bytes.size()) break;
    at = percent + 1;
    if (at < bytes.size() && bytes[at] == '%') {
      out.append(format, at, at + 1);
      ++at;
      continue;
    }
    PKV_ASSIGN_OR_RETURN(const Conversion conversion, read_conversion(bytes, at));
    const Value* value = nullptr;
    if (!conversion.name.empty()) {
      value = arguments.find(conversion.name);
    } else if (next < arguments.values.size()) {
      value = &arguments.values[next++];
    }
    if (value == nullptr) return template_error("not enough arguments for format string");
    PKV_ASSIGN_OR_RETURN(const Text text, convert(conversion, *value, budget));
    const size_t count = conversion.width == 0 ? 0 : count_characters(text.bytes());
    const std::string padding(conversion.width > count ? conversion.width - count : 0, ' ');
    if (!conversion.left) out.append(padding);
    out.append(text);
    if (conversion.left) out.append(padding);
  }
  if (next < arguments.values.size() && arguments.named.empty())
    return template_error("not all arguments converted during string formatting");
  return make_string(out.take(), budget);
}

}  // namespace pkv::jinja
