// Numbers to text and back, as Python's int and float.
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <limits>

#include "server/text/jinja/characters.h"
#include "server/text/jinja/value_text.h"
#include "server/text/jinja/words.h"

namespace pkv::jinja {
namespace {

// `text` without the underscores that Python allows between digits; none where they stand elsewhere.
std::optional<std::string> without_underscores(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '_') {
      out += text[i];
      continue;
    }
    const auto is_digit = [](char c) { return (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z'); };
    if (i == 0 || i + 1 == text.size() || !is_digit(text[i - 1]) || !is_digit(text[i + 1])) return std::nullopt;
  }
  return out;
}

bool take_sign(std::string& text) {
  if (text.empty() || (text[0] != '-' && text[0] != '+')) return false;
  const bool negative = text[0] == '-';
  text.erase(0, 1);
  return negative;
}

// Reads the base a prefix names and takes the prefix away.
bool take_base(std::string& text, int& base) {
  if (text.size() > 2 && text[0] == '0') {
    const char letter = static_cast<char>(text[1] | 32);
    const int named = letter == 'x' ? 16 : letter == 'o' ? 8 : letter == 'b' ? 2 : 0;
    if (named != 0 && (base == 0 || base == named)) {
      base = named;
      text.erase(0, 2);
    }
  }
  if (base != 0) return base >= 2 && base <= 36;
  base = 10;
  return text[0] != '0' || text.find_first_not_of('0') == std::string::npos;
}

}  // namespace

std::string integer_text(int64_t value) { return words(value); }

std::string real_text(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  char buffer[64];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::scientific).ptr;
  std::string_view text(buffer, static_cast<size_t>(end - buffer));
  std::string out;
  if (text[0] == '-') {
    out = "-";
    text.remove_prefix(1);
  }
  const size_t e = text.find('e');
  std::string digits(text.substr(0, 1));
  if (e > 2) digits += text.substr(2, e - 2);
  const int exponent = std::atoi(std::string(text.substr(e + 1)).c_str());
  if (exponent < -4 || exponent >= 16) {
    out += digits[0];
    if (digits.size() > 1) out += words(".", digits.substr(1));
    out += words(exponent < 0 ? "e-" : "e+", std::abs(exponent) < 10 ? "0" : "", std::abs(exponent));
    return out;
  }
  if (exponent < 0) return out + "0." + std::string(static_cast<size_t>(-exponent - 1), '0') + digits;
  const auto whole = static_cast<size_t>(exponent) + 1;
  if (digits.size() <= whole) return out + digits + std::string(whole - digits.size(), '0') + ".0";
  return out + digits.substr(0, whole) + "." + digits.substr(whole);
}

std::optional<int64_t> parse_integer(std::string_view text, int base) {
  auto digits = without_underscores(strip_begin(strip_end(text)));
  if (!digits.has_value()) return std::nullopt;
  const bool negative = take_sign(*digits);
  if (digits->empty() || !take_base(*digits, base)) return std::nullopt;
  if (digits->find_first_of("+-") != std::string::npos) return std::nullopt;
  if (negative) digits->insert(0, "-");
  int64_t value = 0;
  const auto [end, error] = std::from_chars(digits->data(), digits->data() + digits->size(), value, base);
  if (error != std::errc() || end != digits->data() + digits->size()) return std::nullopt;
  return value;
}

std::optional<double> parse_real(std::string_view text) {
  auto digits = without_underscores(strip_begin(strip_end(text)));
  if (!digits.has_value()) return std::nullopt;
  const bool negative = take_sign(*digits);
  if (digits->empty() || digits->find_first_of("+-") == 0) return std::nullopt;
  double value = 0;
  const char* last = digits->data() + digits->size();
  const auto [end, error] = std::from_chars(digits->data(), last, value);
  if (end != last) return std::nullopt;
  if (error == std::errc::result_out_of_range) value = std::strtod(digits->c_str(), nullptr);
  return negative ? -value : value;
}

}  // namespace pkv::jinja
