// Filters on text. As in Jinja, what is not a string is made one first.
#include <array>

#include "kernels/status_macros.h"
#include "server/text/jinja/html.h"
#include "server/text/jinja/operations.h"
#include "server/text/jinja/string_functions.h"
#include "server/text/jinja/value_text.h"

namespace pkv::jinja {
namespace {

using Result = absl::StatusOr<Value>;

bool is_markup(const Value& value) { return value.string() != nullptr && value.string()->markup; }

template <Text (*kChange)(const Text&, Budget&)>
Result changed(Run& run, const Value& self, const Bound&) {
  PKV_ASSIGN_OR_RETURN(const Text text, to_text(self, run.budget));
  return make_string(kChange(text, run.budget), run.budget, is_markup(self));
}

Result trim(Run& run, const Value& self, const Bound& arguments) {
  PKV_ASSIGN_OR_RETURN(const Text text, to_text(self, run.budget));
  std::optional<Text> characters;
  if (arguments[0] != nullptr && !arguments[0]->is_none()) {
    PKV_ASSIGN_OR_RETURN(characters, arguments.text(0));
  }
  return make_string(strip(text, characters, Sides::kBoth, run.budget), run.budget, is_markup(self));
}

Result replaced(Run& run, const Value& self, const Bound& arguments) {
  PKV_ASSIGN_OR_RETURN(const Text text, to_text(self, run.budget));
  PKV_ASSIGN_OR_RETURN(const Text from, to_text(*arguments[0], run.budget));
  PKV_ASSIGN_OR_RETURN(const Text to, to_text(*arguments[1], run.budget));
  const bool all = arguments[2] == nullptr || arguments[2]->is_none();
  PKV_ASSIGN_OR_RETURN(const int64_t count, all ? absl::StatusOr<int64_t>(-1) : arguments.integer(2, -1));
  return make_string(replace(text, from, to, count, run.budget), run.budget);
}

Result indented(Run& run, const Value& self, const Bound& arguments) {
  if (self.string() == nullptr) return template_error("indent needs a string, not ", self.type());
  Text indention;
  if (arguments[0] != nullptr && arguments[0]->string() != nullptr) {
    indention = arguments[0]->string()->text;
  } else {
    PKV_ASSIGN_OR_RETURN(const int64_t width, arguments.integer(0, 4));
    indention = pad(Text(), width, ' ', Sides::kLeft, run.budget);
  }
  Text text = indent(self.string()->text, indention, arguments.flag(1, false), arguments.flag(2, false), run.budget);
  return make_string(std::move(text), run.budget, is_markup(self));
}

Result string(Run& run, const Value& self, const Bound&) {
  if (self.string() != nullptr) return self;
  PKV_ASSIGN_OR_RETURN(Text text, to_text(self, run.budget));
  return make_string(std::move(text), run.budget);
}

Result safe(Run& run, const Value& self, const Bound&) {
  PKV_ASSIGN_OR_RETURN(Text text, to_text(self, run.budget));
  return make_string(std::move(text), run.budget, /*markup=*/true);
}

Result escape(Run& run, const Value& self, const Bound&) {
  if (is_markup(self)) return self;
  PKV_ASSIGN_OR_RETURN(const Text text, to_text(self, run.budget));
  TextBuilder out(run.budget);
  append_escaped(text, out);
  return make_string(out.take(), run.budget, /*markup=*/true);
}

Result center(Run& run, const Value& self, const Bound& arguments) {
  PKV_ASSIGN_OR_RETURN(const Text text, to_text(self, run.budget));
  PKV_ASSIGN_OR_RETURN(const int64_t width, arguments.integer(0, 80));
  return make_string(pad(text, width, ' ', Sides::kBoth, run.budget), run.budget, is_markup(self));
}

Result format(Run& run, const Value& self, const Bound& arguments) {
  PKV_ASSIGN_OR_RETURN(const Text text, to_text(self, run.budget));
  return percent_format(text, arguments.all(), run.budget);
}

// The style of json.dumps that transformers' tojson makes of its arguments.
absl::StatusOr<JsonStyle> json_style(Run& run, const Bound& arguments) {
  JsonStyle style{.ascii = arguments.flag(0, false), .sort_keys = arguments.flag(3, false)};
  if (const Value* indent = arguments[1]; indent != nullptr && !indent->is_none()) {
    style.item_separator = ",";
    if (const String* string = indent->string()) {
      style.indent = string->text.bytes();
    } else {
      PKV_ASSIGN_OR_RETURN(const int64_t width, arguments.integer(1, 0));
      style.indent = pad(Text(), width, ' ', Sides::kLeft, run.budget).bytes();
    }
  }
  if (const Value* separators = arguments[2]; separators != nullptr && !separators->is_none()) {
    PKV_ASSIGN_OR_RETURN(const auto two, iterate(*separators, run.budget));
    const bool strings =
        two->items.size() == 2 && two->items[0].string() != nullptr && two->items[1].string() != nullptr;
    if (!strings) return template_error("separators are two strings");
    style.item_separator = two->items[0].string()->text.bytes();
    style.key_separator = two->items[1].string()->text.bytes();
  }
  return style;
}

Result to_json(Run& run, const Value& self, const Bound& arguments) {
  PKV_ASSIGN_OR_RETURN(const JsonStyle style, json_style(run, arguments));
  TextBuilder out(run.budget);
  PKV_RETURN_IF_ERROR(append_json(self, style, out));
  return make_string(out.take(), run.budget);
}

constexpr Function kFilters[] = {
    {"trim", trim, {"chars"}},
    {"upper", changed<to_upper>},
    {"lower", changed<to_lower>},
    {"capitalize", changed<capitalize>},
    {"title", changed<jinja_title>},
    {"replace", replaced, {"old", "new", "count"}, 2},
    {"indent", indented, {"width", "first", "blank"}},
    {"string", string},
    {"safe", safe},
    {"escape", escape},
    {"e", escape},
    {"center", center, {"width"}},
    {"format", format, {}, 0, /*variadic=*/true},
    {"tojson", to_json, {"ensure_ascii", "indent", "separators", "sort_keys"}},
};

}  // namespace

FunctionTable string_filters() { return kFilters; }

}  // namespace pkv::jinja
