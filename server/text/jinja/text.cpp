#include "server/text/jinja/text.h"

#include <algorithm>

namespace pkv::jinja {

Text::Text(std::string bytes, Source source) : bytes_(std::move(bytes)) {
  if (!bytes_.empty()) runs_.push_back({bytes_.size(), source});
}

void Text::append(std::string_view bytes, Source source) {
  if (bytes.empty()) return;
  bytes_ += bytes;
  if (!runs_.empty() && runs_.back().source == source) {
    runs_.back().end = bytes_.size();
  } else {
    runs_.push_back({bytes_.size(), source});
  }
}

void Text::append(const Text& other, size_t begin, size_t end) {
  for (size_t run = other.run_index(begin); begin < end; ++run) {
    const size_t stop = std::min(end, other.runs_[run].end);
    append(std::string_view(other.bytes_).substr(begin, stop - begin), other.runs_[run].source);
    begin = stop;
  }
}

Text Text::substr(size_t begin, size_t end) const {
  Text part;
  part.append(*this, begin, end);
  return part;
}

size_t Text::run_index(size_t at) const {
  const auto run = std::upper_bound(runs_.begin(), runs_.end(), at,
                                    [](size_t value, const Run& candidate) { return value < candidate.end; });
  return static_cast<size_t>(run - runs_.begin());
}

Source Text::source_at(size_t at) const {
  if (runs_.empty()) return kTemplate;
  return runs_[std::min(run_index(at), runs_.size() - 1)].source;
}

std::vector<Piece> Text::pieces() const { return pieces(0, size()); }

std::vector<Piece> Text::pieces(size_t begin, size_t end) const {
  std::vector<Piece> out;
  for (size_t run = run_index(begin); begin < end; ++run) {
    const size_t stop = std::min(end, runs_[run].end);
    out.push_back({std::string_view(bytes_).substr(begin, stop - begin), runs_[run].source});
    begin = stop;
  }
  return out;
}

bool TextBuilder::make_room(size_t bytes) {
  budget_.spend_bytes(bytes);
  return !budget_.exhausted() && charge_.take(bytes);
}

// How many runs come with an append is known after it: they are no more than those of what is appended.
void TextBuilder::append(std::string_view bytes, Source source) {
  if (!make_room(bytes.size())) return;
  const size_t before = text_.run_memory();
  text_.append(bytes, source);
  charge_.take(text_.run_memory() - before);
}

void TextBuilder::append(const Text& text, size_t begin, size_t end) {
  if (!make_room(end - begin)) return;
  const size_t before = text_.run_memory();
  text_.append(text, begin, end);
  charge_.take(text_.run_memory() - before);
}

}  // namespace pkv::jinja
