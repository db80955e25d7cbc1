// json.dumps.
#include <algorithm>
#include <cmath>

#include "absl/strings/str_format.h"
#include "kernels/status_macros.h"
#include "server/text/jinja/operations.h"
#include "server/text/jinja/replaced.h"
#include "server/text/jinja/value_text.h"
#include "server/text/jinja/words.h"

namespace pkv::jinja {
namespace {

std::string escaped(uint32_t code, bool ascii) {
  switch (code) {
    case '"':
      return "\\\"";
    case '\\':
      return "\\\\";
    case '\n':
      return "\\n";
    case '\r':
      return "\\r";
    case '\t':
      return "\\t";
    case '\f':
      return "\\f";
    case '\b':
      return "\\b";
    default:
      break;
  }
  if (code < 0x20 || (ascii && code >= 0x7F && code < 0x10000)) {
    return code == 0x7F ? "" : absl::StrFormat("\\u%04x", code);
  }
  if (!ascii || code < 0x10000) return "";
  return absl::StrFormat("\\u%04x\\u%04x", 0xD800 + ((code - 0x10000) >> 10), 0xDC00 + ((code - 0x10000) & 0x3FF));
}

void append_string(const Text& text, bool ascii, TextBuilder& out) {
  out.append("\"");
  append_replaced(
      text, [ascii](uint32_t code) { return escaped(code, ascii); }, out);
  out.append("\"");
}

std::string json_real(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value < 0 ? "-Infinity" : "Infinity";
  return real_text(value);
}

class JsonWriter {
 public:
  JsonWriter(const JsonStyle& style, TextBuilder& out) : style_(style), out_(out) {}

  absl::Status write(const Value& value, int level) {
    out_.budget().spend(1);
    if (out_.budget().exhausted()) return out_.budget().status();
    if (const String* string = value.string()) {
      append_string(string->text, style_.ascii, out_);
    } else if (const Sequence* sequence = value.sequence(); sequence != nullptr && is_array(*sequence)) {
      return write_array(sequence->items, level);
    } else if (const Dict* dict = value.dict()) {
      return write_object(*dict, level);
    } else if (const auto scalar = scalar_text(value); scalar.has_value()) {
      out_.append(*scalar);
    } else {
      return template_error("Object of type ", value.type(), " is not JSON serializable");
    }
    return absl::OkStatus();
  }

 private:
  static bool is_array(const Sequence& sequence) {
    return sequence.form == Sequence::Form::kList || sequence.form == Sequence::Form::kTuple;
  }

  static std::optional<std::string> scalar_text(const Value& value) {
    if (value.is_none()) return "null";
    if (const bool* boolean = value.boolean()) return *boolean ? "true" : "false";
    if (const int64_t* integer = value.integer()) return integer_text(*integer);
    if (const double* real = value.real()) return json_real(*real);
    return std::nullopt;
  }

  void new_line(int level) {
    if (!style_.indent.has_value()) return;
    out_.append("\n");
    for (int i = 0; i < level; ++i) out_.append(*style_.indent);
  }

  absl::Status write_array(const std::vector<Value>& items, int level) {
    if (items.empty()) {
      out_.append("[]");
      return absl::OkStatus();
    }
    out_.append("[");
    for (size_t i = 0; i < items.size(); ++i) {
      if (i > 0) out_.append(style_.item_separator);
      new_line(level + 1);
      PKV_RETURN_IF_ERROR(write(items[i], level + 1));
    }
    new_line(level);
    out_.append("]");
    return absl::OkStatus();
  }

  absl::Status write_object(const Dict& dict, int level) {
    if (dict.items.empty()) {
      out_.append("{}");
      return absl::OkStatus();
    }
    std::vector<const std::pair<Value, Value>*> items;
    for (const auto& item : dict.items) items.push_back(&item);
    if (style_.sort_keys) {
      absl::Status failure;
      std::stable_sort(items.begin(), items.end(), [&](const auto* left, const auto* right) {
        const auto result = less(left->first, right->first, out_.budget());
        if (!result.ok()) failure.Update(result.status());
        return result.ok() && *result;
      });
      PKV_RETURN_IF_ERROR(failure);
    }
    out_.append("{");
    bool first = true;
    for (const auto* item : items) {
      if (!first) out_.append(style_.item_separator);
      first = false;
      new_line(level + 1);
      PKV_RETURN_IF_ERROR(write_key(item->first));
      out_.append(style_.key_separator);
      PKV_RETURN_IF_ERROR(write(item->second, level + 1));
    }
    new_line(level);
    out_.append("}");
    return absl::OkStatus();
  }

  absl::Status write_key(const Value& key) {
    if (const String* string = key.string()) {
      append_string(string->text, style_.ascii, out_);
      return absl::OkStatus();
    }
    const auto scalar = scalar_text(key);
    if (!scalar.has_value()) return template_error("keys must be str, int, float, bool or None, not ", key.type());
    out_.append(words("\"", *scalar, "\""));
    return absl::OkStatus();
  }

  const JsonStyle& style_;
  TextBuilder& out_;
};

}  // namespace

absl::Status append_json(const Value& value, const JsonStyle& style, TextBuilder& out) {
  return JsonWriter(style, out).write(value, 0);
}

}  // namespace pkv::jinja
