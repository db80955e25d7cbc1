// Looking for a string in another, in time of their lengths whatever they are.
#pragma once

#include <cstring>
#include <string_view>

#include "server/text/jinja/budget.h"

namespace pkv::jinja {

// The offset of the first `needle` at `from` or behind it; npos: none.
inline size_t find_bytes(std::string_view text, std::string_view needle, size_t from, Budget& budget) {
  if (from > text.size()) return std::string_view::npos;
  if (needle.empty()) return from;
  const void* found = memmem(text.data() + from, text.size() - from, needle.data(), needle.size());  // linear in glibc
  const size_t at = found == nullptr ? std::string_view::npos : static_cast<const char*>(found) - text.data();
  budget.spend(1);
  budget.spend_bytes((found == nullptr ? text.size() : at) - from);
  return at;
}

// The offset of the last `needle` that ends before `end`; npos: none.
inline size_t find_last_bytes(std::string_view text, std::string_view needle, size_t end, Budget& budget) {
  budget.spend(1 + static_cast<int64_t>(end / 1024 * (needle.size() + 1)));  // the worst of it is their product
  return budget.exhausted() ? std::string_view::npos : text.substr(0, end).rfind(needle);
}

}  // namespace pkv::jinja
