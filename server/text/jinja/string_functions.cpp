// Stripping, splitting, replacing, padding.
#include "server/text/jinja/string_functions.h"

#include <algorithm>

#include "server/text/jinja/characters.h"
#include "server/text/jinja/search.h"

namespace pkv::jinja {
namespace {

bool is_line_end(uint32_t code) {
  return (code >= 0x0A && code <= 0x0D) || (code >= 0x1C && code <= 0x1E) || code == 0x85 || code == 0x2028 ||
         code == 0x2029;
}

// The characters of a text, each once, for membership.
bool has_character(std::string_view set, std::string_view character) {
  return set.find(character) != std::string_view::npos;
}

// Pieces of a text, each in the budget while they are collected.
class Pieces {
 public:
  Pieces(const Text& text, Budget& budget) : text_(text), budget_(budget), charge_(&budget) {}

  bool full() const { return budget_.exhausted(); }
  void add(size_t begin, size_t end) {
    budget_.spend(1);
    budget_.spend_bytes(end - begin);
    if (full() || !charge_.take(sizeof(Text) + (end - begin))) return;
    out_.push_back(text_.substr(begin, end));
  }
  std::vector<Text> take() { return std::move(out_); }
  void reverse() { std::reverse(out_.begin(), out_.end()); }

 private:
  const Text& text_;
  Budget& budget_;
  Charge charge_;
  std::vector<Text> out_;
};

std::vector<Text> split_spaces(const Text& text, int64_t count, Budget& budget) {
  const std::string_view bytes = text.bytes();
  budget.spend_bytes(bytes.size());
  Pieces pieces(text, budget);
  size_t at = bytes.size() - strip_begin(bytes).size();
  while (at < bytes.size() && count != 0 && !pieces.full()) {
    size_t end = at;
    while (end < bytes.size()) {
      const Character character = next_character(bytes.substr(end));
      if (is_space(character.code)) break;
      end += character.bytes;
    }
    pieces.add(at, end);
    at = bytes.size() - strip_begin(bytes.substr(end)).size();
    --count;
  }
  if (at < bytes.size()) pieces.add(at, bytes.size());
  return pieces.take();
}

std::vector<Text> split_spaces_from_right(const Text& text, int64_t count, Budget& budget) {
  const std::string_view bytes = text.bytes();
  budget.spend_bytes(bytes.size());
  Pieces pieces(text, budget);
  size_t end = strip_end(bytes).size();
  while (end > 0 && count != 0 && !pieces.full()) {
    size_t begin = end;
    while (begin > 0) {
      const Character character = last_character(bytes.substr(0, begin));
      if (is_space(character.code)) break;
      begin -= character.bytes;
    }
    pieces.add(begin, end);
    end = strip_end(bytes.substr(0, begin)).size();
    --count;
  }
  if (end > 0) pieces.add(0, end);
  pieces.reverse();
  return pieces.take();
}

}  // namespace

Text strip(const Text& text, const std::optional<Text>& characters, Sides sides, Budget& budget) {
  const std::string_view bytes = text.bytes();
  budget.spend_bytes(bytes.size() * (characters.has_value() ? 1 + characters->size() / 64 : 1));
  if (budget.exhausted()) return Text();
  std::string_view kept = bytes;
  const auto goes = [&](std::string_view character, uint32_t code) {
    return characters.has_value() ? has_character(characters->bytes(), character) : is_space(code);
  };
  while (sides != Sides::kRight && !kept.empty()) {
    const Character first = next_character(kept);
    if (!goes(kept.substr(0, first.bytes), first.code)) break;
    kept.remove_prefix(first.bytes);
  }
  while (sides != Sides::kLeft && !kept.empty()) {
    const Character last = last_character(kept);
    if (!goes(kept.substr(kept.size() - last.bytes), last.code)) break;
    kept.remove_suffix(last.bytes);
  }
  const auto begin = static_cast<size_t>(kept.data() - bytes.data());
  return text.substr(begin, begin + kept.size());
}

Text replace(const Text& text, const Text& from, const Text& to, int64_t count, Budget& budget) {
  count = std::max<int64_t>(count, -1);
  const std::string_view bytes = text.bytes();
  TextBuilder out(budget);
  size_t at = 0;
  while (count != 0 && !budget.exhausted()) {
    const size_t found = find_bytes(bytes, from.bytes(), at, budget);
    if (found == std::string_view::npos) break;
    out.append(text, at, found);
    out.append(to);
    at = found + from.size();
    --count;
    if (!from.empty()) continue;
    if (at == bytes.size()) return out.take();
    const size_t next = at + next_character(bytes.substr(at)).bytes;  // between all characters
    out.append(text, at, next);
    at = next;
  }
  out.append(text, at, bytes.size());
  return out.take();
}

std::vector<Text> split(const Text& text, const std::optional<Text>& separator, int64_t count, Budget& budget) {
  count = std::max<int64_t>(count, -1);
  if (!separator.has_value()) return split_spaces(text, count, budget);
  Pieces pieces(text, budget);
  size_t at = 0;
  for (; count != 0 && !pieces.full(); --count) {
    const size_t found = find_bytes(text.bytes(), separator->bytes(), at, budget);
    if (found == std::string_view::npos) break;
    pieces.add(at, found);
    at = found + separator->size();
  }
  pieces.add(at, text.size());
  return pieces.take();
}

std::vector<Text> split_from_right(const Text& text, const std::optional<Text>& separator, int64_t count,
                                   Budget& budget) {
  count = std::max<int64_t>(count, -1);
  if (!separator.has_value()) return split_spaces_from_right(text, count, budget);
  Pieces pieces(text, budget);
  size_t end = text.size();
  for (; count != 0 && !pieces.full() && end >= separator->size(); --count) {
    const size_t found = find_last_bytes(text.bytes(), separator->bytes(), end, budget);
    if (found == std::string_view::npos) break;
    pieces.add(found + separator->size(), end);
    end = found;
  }
  pieces.add(0, end);
  pieces.reverse();
  return pieces.take();
}

std::vector<Text> split_lines(const Text& text, bool keep_ends, Budget& budget) {
  const std::string_view bytes = text.bytes();
  budget.spend_bytes(bytes.size());
  Pieces pieces(text, budget);
  size_t begin = 0;
  for (size_t at = 0; at < bytes.size() && !pieces.full();) {
    const Character character = next_character(bytes.substr(at));
    size_t next = at + character.bytes;
    if (is_line_end(character.code)) {
      if (character.code == '\r' && next < bytes.size() && bytes[next] == '\n') ++next;
      pieces.add(begin, keep_ends ? next : at);
      begin = next;
    }
    at = next;
  }
  if (begin < bytes.size()) pieces.add(begin, bytes.size());
  return pieces.take();
}

Text indent(const Text& text, const Text& indention, bool first, bool blank, Budget& budget) {
  Text ended = text;
  ended.append("\n", kTemplate);  // so that the last line counts, empty or not
  const std::vector<Text> lines = split_lines(ended, /*keep_ends=*/false, budget);
  TextBuilder out(budget);
  if (first) out.append(indention);
  for (size_t i = 0; i < lines.size() && !budget.exhausted(); ++i) {
    if (i > 0) out.append("\n", lines[i].source_at(0));
    if (i > 0 && (blank || !lines[i].empty())) out.append(indention);
    out.append(lines[i]);
  }
  return out.take();
}

Text pad(const Text& text, int64_t width, char fill, Sides text_side, Budget& budget) {
  budget.spend_bytes(text.size());
  const auto count = static_cast<int64_t>(count_characters(text.bytes()));
  if (width <= count) return text;
  const int64_t missing = width - count;
  int64_t left = 0;
  if (text_side == Sides::kRight) left = missing;
  if (text_side == Sides::kBoth) left = missing / 2 + (missing & width & 1);  // as str.center has it
  const std::string_view one(&fill, 1);
  TextBuilder out(budget);
  for (int64_t i = 0; i < left && !budget.exhausted(); ++i, budget.spend(1)) out.append(one);
  out.append(text);
  for (int64_t i = left; i < missing && !budget.exhausted(); ++i, budget.spend(1)) out.append(one);
  return out.take();
}

}  // namespace pkv::jinja
