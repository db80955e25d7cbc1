#include "server/text/jinja/html.h"

#include "server/text/jinja/replaced.h"

namespace pkv::jinja {
namespace {

std::string entity(uint32_t code) {
  switch (code) {
    case '&':
      return "&amp;";
    case '<':
      return "&lt;";
    case '>':
      return "&gt;";
    case '\'':
      return "&#39;";
    case '"':
      return "&#34;";
    default:
      return "";
  }
}

}  // namespace

void append_escaped(const Text& text, TextBuilder& out) { append_replaced(text, entity, out); }

}  // namespace pkv::jinja
