// Sentences from parts: strings and integers. (Debian's absl has a string_view of its own, which StrCat would want.)
#pragma once

#include <string>
#include <string_view>
#include <type_traits>

namespace pkv::jinja {

template <typename Part>
void append_word(std::string& out, const Part& part) {
  if constexpr (std::is_arithmetic_v<Part>) {
    out += std::to_string(part);
  } else {
    out += std::string_view(part);
  }
}

template <typename... Parts>
std::string words(const Parts&... parts) {
  std::string out;
  (append_word(out, parts), ...);
  return out;
}

}  // namespace pkv::jinja
