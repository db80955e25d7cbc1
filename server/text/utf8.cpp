#include "server/text/utf8.h"

namespace pkv {

std::string_view append_valid_utf8(std::string_view text, std::string& out) {
  while (!text.empty()) {
    const Utf8Step step = next_utf8(text);
    if (step.kind == Utf8Kind::kTruncated) break;
    out += step.kind == Utf8Kind::kCharacter ? text.substr(0, step.bytes) : kReplacementCharacter;
    text.remove_prefix(step.bytes);
  }
  return text;
}

}  // namespace pkv
