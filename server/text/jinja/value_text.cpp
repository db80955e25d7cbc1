// str() and repr().
#include "server/text/jinja/value_text.h"

#include "absl/strings/str_format.h"
#include "kernels/status_macros.h"
#include "server/text/jinja/callable.h"
#include "server/text/jinja/characters.h"
#include "server/text/jinja/replaced.h"
#include "server/text/jinja/words.h"

namespace pkv::jinja {
namespace {

// One character of a string literal; empty: as it is.
std::string escaped(uint32_t code, char quote) {
  switch (code) {
    case '\n':
      return "\\n";
    case '\r':
      return "\\r";
    case '\t':
      return "\\t";
    case '\\':
      return "\\\\";
    default:
      break;
  }
  if (code == static_cast<uint32_t>(quote)) return {'\\', quote};
  if (is_printable(code)) return "";
  if (code < 0x100) return absl::StrFormat("\\x%02x", code);
  if (code < 0x10000) return absl::StrFormat("\\u%04x", code);
  return absl::StrFormat("\\U%08x", code);
}

void append_quoted(const Text& text, TextBuilder& out) {
  const bool has_single = text.bytes().find('\'') != std::string::npos;
  const char quote = has_single && text.bytes().find('"') == std::string::npos ? '"' : '\'';
  out.append(std::string_view(&quote, 1));
  append_replaced(
      text, [quote](uint32_t code) { return escaped(code, quote); }, out);
  out.append(std::string_view(&quote, 1));
}

absl::Status append_items(const std::vector<Value>& items, TextBuilder& out) {
  for (size_t i = 0; i < items.size(); ++i) {
    if (i > 0) out.append(", ");
    PKV_RETURN_IF_ERROR(append_repr(items[i], out));
  }
  return absl::OkStatus();
}

absl::Status append_sequence(const Sequence& sequence, TextBuilder& out) {
  switch (sequence.form) {
    case Sequence::Form::kList:
      out.append("[");
      PKV_RETURN_IF_ERROR(append_items(sequence.items, out));
      out.append("]");
      break;
    case Sequence::Form::kTuple:
      out.append("(");
      PKV_RETURN_IF_ERROR(append_items(sequence.items, out));
      out.append(sequence.items.size() == 1 ? ",)" : ")");
      break;
    case Sequence::Form::kRange:
      out.append(words("range(", sequence.start, ", ", sequence.stop));
      if (sequence.step != 1) out.append(words(", ", sequence.step));
      out.append(")");
      break;
    case Sequence::Form::kDictView:
      out.append(words(sequence.view, "(["));
      PKV_RETURN_IF_ERROR(append_items(sequence.items, out));
      out.append("])");
      break;
    case Sequence::Form::kGenerator:
      return template_error("a generator has no text; the filter list makes a list of it");
  }
  return absl::OkStatus();
}

absl::Status append_dict(const Dict& dict, TextBuilder& out) {
  out.append("{");
  for (size_t i = 0; i < dict.items.size(); ++i) {
    if (i > 0) out.append(", ");
    PKV_RETURN_IF_ERROR(append_repr(dict.items[i].first, out));
    out.append(": ");
    PKV_RETURN_IF_ERROR(append_repr(dict.items[i].second, out));
  }
  out.append("}");
  return absl::OkStatus();
}

}  // namespace

absl::Status append_repr(const Value& value, TextBuilder& out) {
  out.budget().spend(1);
  if (out.budget().exhausted()) return out.budget().status();
  if (value.is_undefined()) {
    out.append("Undefined");
  } else if (value.is_none()) {
    out.append("None");
  } else if (const bool* boolean = value.boolean()) {
    out.append(*boolean ? "True" : "False");
  } else if (const int64_t* integer = value.integer()) {
    out.append(integer_text(*integer));
  } else if (const double* real = value.real()) {
    out.append(real_text(*real));
  } else if (const String* string = value.string()) {
    if (string->markup) out.append("Markup(");
    append_quoted(string->text, out);
    if (string->markup) out.append(")");
  } else if (const Sequence* sequence = value.sequence()) {
    return append_sequence(*sequence, out);
  } else if (const Dict* dict = value.dict()) {
    return append_dict(*dict, out);
  } else {
    return template_error("a ", value.type(), " has no text");
  }
  return absl::OkStatus();
}

absl::Status append_text(const Value& value, TextBuilder& out) {
  if (value.is_undefined()) return absl::OkStatus();
  if (const String* string = value.string()) {
    out.append(string->text);
    return absl::OkStatus();
  }
  return append_repr(value, out);
}

absl::StatusOr<Text> to_text(const Value& value, Budget& budget) {
  if (const String* string = value.string()) return string->text;
  TextBuilder out(budget);
  PKV_RETURN_IF_ERROR(append_text(value, out));
  return out.take();
}

}  // namespace pkv::jinja
