#include "server/text/jinja/tag_scanner.h"

#include <array>

#include "kernels/status_macros.h"
#include "server/text/jinja/characters.h"
#include "server/text/jinja/value_text.h"

namespace pkv::jinja {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }

constexpr std::array<std::string_view, 6> kLongOperators = {"//", "**", "==", "!=", ">=", "<="};
constexpr std::string_view kOperators = "+-/*%~[](){}><=.:|,;";

char closing(char open) { return open == '(' ? ')' : open == '[' ? ']' : open == '{' ? '}' : '\0'; }

}  // namespace

size_t tag_end(std::string_view source, size_t at, std::string_view close, bool trim) {
  const bool minus = at < source.size() && source[at] == '-', plus = at < source.size() && source[at] == '+';
  if (plus && close == "}}") return std::string::npos;
  if (minus || plus) ++at;
  if (at > source.size() || source.substr(at, close.size()) != close) return std::string::npos;
  at += close.size();
  if (minus) return source.size() - strip_begin(source.substr(at)).size();
  return !plus && trim && at < source.size() && source[at] == '\n' ? at + 1 : at;
}

absl::StatusOr<size_t> TagScanner::scan(std::string_view close, std::vector<Token>& out) {
  const bool print = close == "}}";
  while (true) {
    const std::string_view rest = source_.substr(at_);
    if (open_.empty()) {
      const size_t end = tag_end(source_, at_, close, /*trim=*/!print);
      if (end != std::string::npos) {
        out.push_back({.kind = print ? TokenKind::kPrintEnd : TokenKind::kBlockEnd, .at = cursor_.position(at_)});
        return end;
      }
    }
    if (rest.empty()) return source_.size();  // the parser says what is missing
    if (is_space(next_character(rest).code)) {
      at_ += next_character(rest).bytes;
      continue;
    }
    Token token{.at = cursor_.position(at_)};
    PKV_RETURN_IF_ERROR(scan_token(token));
    out.push_back(std::move(token));
  }
}

absl::Status TagScanner::scan_token(Token& token) {
  const char c = source_[at_];
  if (is_digit(c)) return scan_number(token);
  if (c == '\'' || c == '"') return scan_string(token);
  if (!is_letter(c)) return scan_operator(token);
  const size_t begin = at_;
  while (is_letter(char_at(at_)) || is_digit(char_at(at_))) ++at_;
  token.kind = TokenKind::kName;
  token.text = source_.substr(begin, at_ - begin);
  return absl::OkStatus();
}

// Behind digits with single underscores between them; `at` where there are none.
size_t TagScanner::digits_end(size_t at) const {
  if (!is_digit(char_at(at))) return at;
  while (is_digit(char_at(at)) || (char_at(at) == '_' && is_digit(char_at(at + 1)))) ++at;
  return at;
}

absl::Status TagScanner::scan_number(Token& token) {
  const size_t begin = at_;
  const bool after_dot = begin > 0 && source_[begin - 1] == '.';  // x.0.1 is no number
  size_t end = digits_end(begin), real_end = end;
  if (char_at(end) == '.' && is_digit(char_at(end + 1))) real_end = digits_end(end + 1);
  if ((char_at(real_end) | 32) == 'e') {
    const size_t exponent = real_end + (char_at(real_end + 1) == '+' || char_at(real_end + 1) == '-' ? 2 : 1);
    if (is_digit(char_at(exponent))) real_end = digits_end(exponent);
  }
  if (real_end > end && !after_dot) {
    at_ = real_end;
    const auto value = parse_real(source_.substr(begin, at_ - begin));
    if (!value.has_value()) return syntax_error(token.at, "not a number");
    token.kind = TokenKind::kReal;
    token.real = *value;
    return absl::OkStatus();
  }
  if (const char letter = static_cast<char>(char_at(begin + 1) | 32);
      source_[begin] == '0' && (letter == 'x' || letter == 'o' || letter == 'b')) {
    end = begin + 2;
    while (is_digit(char_at(end)) || is_letter(char_at(end))) ++end;
  }
  at_ = end;
  const auto value = parse_integer(source_.substr(begin, end - begin), 0);
  if (!value.has_value()) return syntax_error(token.at, "not an integer of 64 bits");
  token.kind = TokenKind::kInteger;
  token.integer = *value;
  return absl::OkStatus();
}

absl::Status TagScanner::scan_string(Token& token) {
  const char quote = source_[at_++];
  token.kind = TokenKind::kString;
  while (char_at(at_) != quote) {
    if (at_ >= source_.size()) return syntax_error(token.at, "the string has no end");
    if (source_[at_] != '\\') {
      token.text += source_[at_++];
      continue;
    }
    ++at_;
    PKV_RETURN_IF_ERROR(scan_escape(token));
  }
  ++at_;
  return absl::OkStatus();
}

// What follows a backslash, as Python reads it; what is no escape keeps its backslash.
absl::Status TagScanner::scan_escape(Token& token) {
  constexpr std::string_view kLetters = "abfnrtv\\'\"", kValues = "\a\b\f\n\r\t\v\\'\"";
  if (at_ >= source_.size()) return syntax_error(token.at, "the string has no end");
  const char c = source_[at_++];
  if (const size_t simple = kLetters.find(c); simple != std::string_view::npos) {
    token.text += kValues[simple];
    return absl::OkStatus();
  }
  uint32_t code = 0;
  if (c == '\n') return absl::OkStatus();
  if (c == 'x') {
    PKV_ASSIGN_OR_RETURN(code, scan_code(2, 16));
  } else if (c == 'u') {
    PKV_ASSIGN_OR_RETURN(code, scan_code(4, 16));
  } else if (c == 'U') {
    PKV_ASSIGN_OR_RETURN(code, scan_code(8, 16));
  } else if (c >= '0' && c <= '7') {
    --at_;
    size_t digits = 1;
    while (digits < 3 && char_at(at_ + digits) >= '0' && char_at(at_ + digits) <= '7') ++digits;
    PKV_ASSIGN_OR_RETURN(code, scan_code(digits, 8));
  } else if (c == 'N') {
    return syntax_error(cursor_.position(at_ - 2), "\\N{...} is not supported");
  } else {
    token.text += '\\';
    token.text += c;
    return absl::OkStatus();
  }
  append_character(code, token.text);
  return absl::OkStatus();
}

absl::StatusOr<uint32_t> TagScanner::scan_code(size_t digits, uint32_t base) {
  uint64_t code = 0;
  for (size_t i = 0; i < digits; ++i) {
    const char c = char_at(at_);
    const bool hex = base == 16 && (c | 32) >= 'a' && (c | 32) <= 'f';
    if (!is_digit(c) && !hex) return syntax_error(cursor_.position(at_), "the escape is cut off");
    code = code * base + static_cast<uint64_t>(is_digit(c) ? c - '0' : (c | 32) - 'a' + 10);
    ++at_;
  }
  if (code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) {
    return syntax_error(cursor_.position(at_), "the escape is not a character");
  }
  return static_cast<uint32_t>(code);
}

absl::Status TagScanner::scan_operator(Token& token) {
  token.kind = TokenKind::kOperator;
  for (const std::string_view op : kLongOperators) {
    if (source_.substr(at_, op.size()) == op) token.text = op;
  }
  const char c = source_[at_];
  if (token.text.empty()) {
    if (kOperators.find(c) == std::string_view::npos) {
      const std::string_view character = source_.substr(at_, next_character(source_.substr(at_)).bytes);
      return syntax_error(token.at, "unexpected character '", character, "'");
    }
    token.text = c;
    if (closing(c) != '\0') open_.push_back(closing(c));
    if (c == ')' || c == ']' || c == '}') {
      if (open_.empty()) return syntax_error(token.at, "unexpected '", token.text, "'");
      const char expected = open_.back();
      open_.pop_back();
      if (expected != c) {
        return syntax_error(token.at, "unexpected '", token.text, "', expected '", std::string(1, expected), "'");
      }
    }
  }
  at_ += token.text.size();
  return absl::OkStatus();
}

}  // namespace pkv::jinja
