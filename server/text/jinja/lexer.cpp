// The outer shape of a template: text, tags, comments, raw blocks. What is inside of tags is scanned by tag_scanner.
#include "server/text/jinja/lexer.h"

#include <algorithm>
#include <utility>

#include "kernels/status_macros.h"
#include "server/text/jinja/characters.h"
#include "server/text/jinja/tag_scanner.h"
#include "server/text/jinja/words.h"

namespace pkv::jinja {
namespace {

// Line ends as \n; the last one does not count, as Jinja has it.
std::string normalized(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r') {
      out += source[i];
      continue;
    }
    out += '\n';
    if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
  }
  if (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(normalized(source)), cursor_(source_) {}

  absl::StatusOr<std::vector<Token>> run() && {
    while (at_ < source_.size()) {
      const size_t tag = find_tag(at_);
      if (tag == source_.size()) {
        add_text(at_, rest().size());
        break;
      }
      const char kind = source_[tag + 1];
      const char sign = sign_at(tag + 2);
      const size_t inside = tag + 2 + (sign == 0 ? 0 : 1);
      const size_t raw = kind == '%' ? match_word_tag(tag, "raw", /*trim=*/false) : std::string::npos;
      add_text(at_, kept(rest().substr(0, tag - at_), sign, kind != '{'));
      if (raw != std::string::npos) {
        PKV_RETURN_IF_ERROR(read_raw(tag, raw));
      } else if (kind == '#') {
        PKV_RETURN_IF_ERROR(read_comment(tag, inside));
      } else {
        PKV_RETURN_IF_ERROR(read_tag(tag, inside, kind == '{'));
      }
    }
    tokens_.push_back({.kind = TokenKind::kEnd, .at = cursor_.position(source_.size())});
    return std::move(tokens_);
  }

 private:
  std::string_view rest() const { return std::string_view(source_).substr(at_); }
  char sign_at(size_t at) const {
    return at < source_.size() && (source_[at] == '-' || source_[at] == '+') ? source_[at] : '\0';
  }

  size_t find_tag(size_t from) const {
    for (size_t at = source_.find('{', from); at != std::string::npos; at = source_.find('{', at + 1)) {
      if (at + 1 < source_.size() && std::string_view("{%#").find(source_[at + 1]) != std::string_view::npos) return at;
    }
    return source_.size();
  }

  // How much of the text before a tag stays: {%- takes all white space away, {% the indentation of its line.
  size_t kept(std::string_view text, char sign, bool block) const {
    if (sign == '-') return strip_end(text).size();
    if (sign == '+' || !block) return text.size();
    const size_t line = text.rfind('\n') + 1;  // 0 where there is none
    const bool only_indentation = strip_begin(text.substr(line)).empty();
    return only_indentation && (line > 0 || line_starts_) ? line : text.size();
  }

  void add_text(size_t begin, size_t size) {
    if (size == 0) return;
    tokens_.push_back({.kind = TokenKind::kText, .at = cursor_.position(begin), .text = source_.substr(begin, size)});
  }

  // Goes on behind a tag's end.
  void leave(size_t end) {
    at_ = end;
    line_starts_ = end > 0 && source_[end - 1] == '\n';
  }

  // The offset behind {% word %} at `tag`; npos where it is not that. `trim`: a line end behind it belongs to it.
  size_t match_word_tag(size_t tag, std::string_view word, bool trim) const {
    size_t at = tag + 2 + (sign_at(tag + 2) == 0 ? 0 : 1);
    at = skip_space(at);
    if (std::string_view(source_).substr(at, word.size()) != word) return std::string::npos;
    at = skip_space(at + word.size());
    return tag_end(source_, at, "%}", trim);
  }
  size_t skip_space(size_t at) const {
    return source_.size() - strip_begin(std::string_view(source_).substr(std::min(at, source_.size()))).size();
  }

  absl::Status read_raw(size_t tag, size_t begin) {
    for (size_t at = source_.find("{%", begin); at != std::string::npos; at = source_.find("{%", at + 1)) {
      const size_t end = match_word_tag(at, "endraw", /*trim=*/true);
      if (end == std::string::npos) continue;
      line_starts_ = source_[begin - 1] == '\n';
      add_text(begin, kept(std::string_view(source_).substr(begin, at - begin), sign_at(at + 2), true));
      leave(end);
      return absl::OkStatus();
    }
    return syntax_error(cursor_.position(tag), "the end of the raw block is missing");
  }

  absl::Status read_comment(size_t tag, size_t inside) {
    const size_t close = source_.find("#}", inside);
    if (close == std::string::npos) return syntax_error(cursor_.position(tag), "the end of the comment is missing");
    const bool sign = close > inside && sign_at(close - 1) != 0;
    leave(tag_end(source_, sign ? close - 1 : close, "#}", /*trim=*/true));
    return absl::OkStatus();
  }

  absl::Status read_tag(size_t tag, size_t inside, bool print) {
    tokens_.push_back({.kind = print ? TokenKind::kPrintBegin : TokenKind::kBlockBegin, .at = cursor_.position(tag)});
    TagScanner scanner(source_, inside, cursor_);
    PKV_ASSIGN_OR_RETURN(const size_t end, scanner.scan(print ? "}}" : "%}", tokens_));
    leave(end);
    return absl::OkStatus();
  }

  const std::string source_;
  Cursor cursor_;
  size_t at_ = 0;
  bool line_starts_ = true;  // the text at at_ begins a line
  std::vector<Token> tokens_;
};

}  // namespace

std::string describe(const Token& token) {
  switch (token.kind) {
    case TokenKind::kText:
      return "text";
    case TokenKind::kPrintBegin:
      return "'{{'";
    case TokenKind::kPrintEnd:
      return "'}}'";
    case TokenKind::kBlockBegin:
      return "'{%'";
    case TokenKind::kBlockEnd:
      return "'%}'";
    case TokenKind::kName:
    case TokenKind::kOperator:
      return words("'", token.text.substr(0, 64), "'");
    case TokenKind::kString:
      return "a string";
    case TokenKind::kInteger:
    case TokenKind::kReal:
      return "a number";
    case TokenKind::kEnd:
      return "the end of the template";
  }
  return "";
}

absl::StatusOr<std::vector<Token>> tokenize(std::string_view source) { return Lexer(source).run(); }

}  // namespace pkv::jinja
