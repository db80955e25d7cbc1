// Escaping of HTML, as MarkupSafe does it.
#pragma once

#include "server/text/jinja/text.h"

namespace pkv::jinja {

void append_escaped(const Text& text, TextBuilder& out);

}  // namespace pkv::jinja
