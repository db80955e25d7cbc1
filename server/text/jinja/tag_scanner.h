// The tokens inside of one tag.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "absl/status/statusor.h"
#include "server/text/jinja/lexer.h"

namespace pkv::jinja {

// Counts lines up to ascending offsets of a text.
class Cursor {
 public:
  explicit Cursor(std::string_view text) : text_(text) {}

  Position position(size_t offset) {
    for (; counted_ < offset; ++counted_) {
      if (text_[counted_] != '\n') continue;
      ++line_;
      line_begin_ = counted_ + 1;
    }
    return {line_, static_cast<uint32_t>(offset - line_begin_ + 1)};
  }

 private:
  std::string_view text_;
  size_t counted_ = 0, line_begin_ = 0;
  uint32_t line_ = 1;
};

// The offset behind a tag's end at `at`: `close`, where -close takes the white space behind it along, +close nothing,
// and close a line end if `trim`. npos where it does not end there.
size_t tag_end(std::string_view source, size_t at, std::string_view close, bool trim);

class TagScanner {
 public:
  TagScanner(std::string_view source, size_t at, Cursor& cursor) : source_(source), at_(at), cursor_(cursor) {}

  // Appends the tokens up to `close` with it, and returns the offset where the text goes on.
  absl::StatusOr<size_t> scan(std::string_view close, std::vector<Token>& out);

 private:
  absl::Status scan_token(Token& token);
  absl::Status scan_number(Token& token);
  absl::Status scan_string(Token& token);
  absl::Status scan_operator(Token& token);
  absl::StatusOr<uint32_t> scan_code(size_t digits, uint32_t base);
  absl::Status scan_escape(Token& token);
  size_t digits_end(size_t at) const;
  char char_at(size_t at) const { return at < source_.size() ? source_[at] : '\0'; }

  std::string_view source_;
  size_t at_;
  Cursor& cursor_;
  absl::InlinedVector<char, 16> open_;  // closing brackets that are awaited
};

}  // namespace pkv::jinja
