// Where in a template something stands, for errors.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "server/text/jinja/words.h"

namespace pkv::jinja {

struct Position {
  uint32_t line = 1, column = 1;  // from 1; columns in bytes
};

// INVALID_ARGUMENT "line 3, column 14: ...": what a template's text is refused for.
template <typename... Parts>
absl::Status syntax_error(Position at, const Parts&... parts) {
  return absl::InvalidArgumentError(words("line ", at.line, ", column ", at.column, ": ", parts...));
}

}  // namespace pkv::jinja
