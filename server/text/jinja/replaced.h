// Texts in which some characters are written otherwise: in quotes, in JSON, in HTML.
#pragma once

#include <cstdint>
#include <string>

#include "absl/functional/function_ref.h"
#include "server/text/jinja/text.h"

namespace pkv::jinja {

// Every character for which `replacement` is not empty as that, the others as they are. What is put in has the source
// of the character.
void append_replaced(const Text& text, absl::FunctionRef<std::string(uint32_t code)> replacement, TextBuilder& out);

}  // namespace pkv::jinja
