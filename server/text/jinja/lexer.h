// A template's text as tokens, with the white space control of trim_blocks, lstrip_blocks and {%- -%}.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "server/text/jinja/position.h"

namespace pkv::jinja {

enum class TokenKind : uint8_t {
  kText,        // outside of tags, written as it is
  kPrintBegin,  // {{
  kPrintEnd,    // }}
  kBlockBegin,  // {%
  kBlockEnd,    // %}
  kName,
  kString,
  kInteger,
  kReal,
  kOperator,  // a bracket too
  kEnd,       // of the template
};

struct Token {
  TokenKind kind = TokenKind::kEnd;
  Position at;
  std::string text;  // of kText, kName, kOperator; the value of kString
  int64_t integer = 0;
  double real = 0;

  bool is_operator(std::string_view which) const { return kind == TokenKind::kOperator && text == which; }
  bool is_name(std::string_view which) const { return kind == TokenKind::kName && text == which; }
};

// How an error names a token.
std::string describe(const Token& token);

// Ends with kEnd. Brackets inside a tag are balanced. INVALID_ARGUMENT with line and column for what is no token.
absl::StatusOr<std::vector<Token>> tokenize(std::string_view source);

}  // namespace pkv::jinja
