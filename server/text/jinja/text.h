// A string that knows where each of its bytes comes from: the template, or something the caller passed in.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "server/text/jinja/budget.h"

namespace pkv::jinja {

// The template, or a number of the caller's own (0 and up).
using Source = int32_t;
inline constexpr Source kTemplate = -1;

// A stretch of a Text from one source; it points into the Text.
struct Piece {
  std::string_view text;
  Source source = kTemplate;
};

class Text {
 public:
  Text() = default;
  explicit Text(std::string bytes, Source source = kTemplate);

  const std::string& bytes() const { return bytes_; }
  size_t size() const { return bytes_.size(); }
  bool empty() const { return bytes_.empty(); }
  size_t run_memory() const { return runs_.size() * sizeof(Run); }
  size_t memory() const { return bytes_.capacity() + run_memory(); }

  void append(std::string_view bytes, Source source);
  void append(const Text& other, size_t begin, size_t end);  // its bytes [begin, end)
  Text substr(size_t begin, size_t end) const;

  // The source of the byte at `at`, which may be the end: then that of the last byte.
  Source source_at(size_t at) const;
  // Neighbours have different sources; empty for an empty text.
  std::vector<Piece> pieces() const;
  std::vector<Piece> pieces(size_t begin, size_t end) const;  // of the bytes [begin, end)

 private:
  struct Run {
    size_t end;
    Source source;
  };

  size_t run_index(size_t at) const;

  std::string bytes_;
  absl::InlinedVector<Run, 1> runs_;  // ends ascending, the last one is bytes_.size()
};

// Puts a Text together within a budget: what would go over it is left out, and the budget says so.
class TextBuilder {
 public:
  explicit TextBuilder(Budget& budget) : budget_(budget), charge_(&budget) {}

  void append(std::string_view bytes, Source source = kTemplate);
  void append(const Text& text) { append(text, 0, text.size()); }
  void append(const Text& text, size_t begin, size_t end);

  Budget& budget() { return budget_; }
  size_t size() const { return text_.size(); }
  const Text& text() const { return text_; }
  Text take() { return std::move(text_); }

 private:
  bool make_room(size_t bytes);

  Budget& budget_;
  Charge charge_;
  Text text_;
};

}  // namespace pkv::jinja
