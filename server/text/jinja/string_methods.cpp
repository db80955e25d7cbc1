// Methods of str that make strings.
#include <algorithm>

#include "kernels/status_macros.h"
#include "server/text/jinja/characters.h"
#include "server/text/jinja/operations.h"
#include "server/text/jinja/string_functions.h"
#include "server/text/jinja/value_text.h"

namespace pkv::jinja {
namespace {

using Result = absl::StatusOr<Value>;

const Text& text_of(const Value& self) { return self.string()->text; }

Value same_kind(Text text, const Value& self, Budget& budget) {
  return make_string(std::move(text), budget, self.string()->markup);
}

// An argument that may be none or missing.
absl::StatusOr<std::optional<Text>> optional_text(const Bound& arguments, size_t index) {
  if (arguments[index] == nullptr || arguments[index]->is_none()) return std::nullopt;
  PKV_ASSIGN_OR_RETURN(Text text, arguments.text(index));
  return text;
}

template <Text (*kChange)(const Text&, Budget&)>
Result changed(Run& run, const Value& self, const Bound&) {
  return same_kind(kChange(text_of(self), run.budget), self, run.budget);
}

template <Sides kSides>
Result stripped(Run& run, const Value& self, const Bound& arguments) {
  PKV_ASSIGN_OR_RETURN(const auto characters, optional_text(arguments, 0));
  return same_kind(strip(text_of(self), characters, kSides, run.budget), self, run.budget);
}

Result replaced(Run& run, const Value& self, const Bound& arguments) {
  PKV_ASSIGN_OR_RETURN(const Text from, arguments.text(0));
  PKV_ASSIGN_OR_RETURN(const Text to, arguments.text(1));
  PKV_ASSIGN_OR_RETURN(const int64_t count, arguments.integer(2, -1));
  return same_kind(replace(text_of(self), from, to, count, run.budget), self, run.budget);
}

Value list_of(std::vector<Text> texts, const Value& self, Budget& budget) {
  std::vector<Value> items;
  for (Text& text : texts) items.push_back(same_kind(std::move(text), self, budget));
  return make_list(std::move(items), budget);
}

template <std::vector<Text> (*kSplit)(const Text&, const std::optional<Text>&, int64_t, Budget&)>
Result parted(Run& run, const Value& self, const Bound& arguments) {
  PKV_ASSIGN_OR_RETURN(const auto separator, optional_text(arguments, 0));
  if (separator.has_value() && separator->empty()) return template_error("empty separator");
  PKV_ASSIGN_OR_RETURN(const int64_t count, arguments.integer(1, -1));
  return list_of(kSplit(text_of(self), separator, count, run.budget), self, run.budget);
}

Result lines(Run& run, const Value& self, const Bound& arguments) {
  return list_of(split_lines(text_of(self), arguments.flag(0, false), run.budget), self, run.budget);
}

template <bool kFromRight>
Result partitioned(Run& run, const Value& self, const Bound& arguments) {
  PKV_ASSIGN_OR_RETURN(const Text separator, arguments.text(0));
  if (separator.empty()) return template_error("empty separator");
  std::vector<Text> parts = kFromRight ? split_from_right(text_of(self), separator, 1, run.budget)
                                       : split(text_of(self), separator, 1, run.budget);
  if (parts.size() == 2) {
    parts.insert(parts.begin() + 1, separator);
  } else {
    parts.resize(1);
    parts.insert(kFromRight ? parts.begin() : parts.end(), 2, Text());
  }
  std::vector<Value> items;
  for (Text& part : parts) items.push_back(same_kind(std::move(part), self, run.budget));
  return make_list(std::move(items), run.budget, Sequence::Form::kTuple);
}

template <bool kFront>
Result without(Run& run, const Value& self, const Bound& arguments) {
  PKV_ASSIGN_OR_RETURN(const Text affix, arguments.text(0));
  const Text& text = text_of(self);
  const bool there = kFront ? text.bytes().starts_with(affix.bytes()) : text.bytes().ends_with(affix.bytes());
  if (!there) return self;
  const size_t begin = kFront ? affix.size() : 0;
  return same_kind(text.substr(begin, begin + text.size() - affix.size()), self, run.budget);
}

template <Sides kSide>
Result padded(Run& run, const Value& self, const Bound& arguments) {
  PKV_ASSIGN_OR_RETURN(const int64_t width, arguments.integer(0, 0));
  PKV_ASSIGN_OR_RETURN(const Text fill, arguments.text(1, " "));
  if (fill.size() != 1) return template_error("the fill character must be one of ASCII");
  return same_kind(pad(text_of(self), width, fill.bytes()[0], kSide, run.budget), self, run.budget);
}

Result zero_filled(Run& run, const Value& self, const Bound& arguments) {
  PKV_ASSIGN_OR_RETURN(const int64_t width, arguments.integer(0, 0));
  const Text& text = text_of(self);
  const size_t sign = !text.empty() && (text.bytes()[0] == '-' || text.bytes()[0] == '+') ? 1 : 0;
  const Text digits = text.substr(sign, text.size());
  TextBuilder out(run.budget);
  out.append(text, 0, sign);
  out.append(pad(digits, std::max<int64_t>(width, 1) - static_cast<int64_t>(sign), '0', Sides::kRight, run.budget));
  return same_kind(out.take(), self, run.budget);
}

Result join(Run& run, const Value& self, const Bound& arguments) {
  PKV_ASSIGN_OR_RETURN(const auto sequence, iterate(*arguments[0], run.budget));
  TextBuilder out(run.budget);
  bool between = false;
  for (const Value& item : sequence->items) {
    if (item.string() == nullptr) return template_error("join: str instance expected, ", item.type(), " found");
    run.budget.spend(1);
    if (run.budget.exhausted()) break;
    if (std::exchange(between, true)) out.append(text_of(self));
    out.append(item.string()->text);
  }
  return make_string(out.take(), run.budget);
}

// "{} {0} {name}".format(...), without attributes and format specifications.
Result format(Run& run, const Value& self, const Bound& bound) {
  const Text& text = text_of(self);
  const std::string_view bytes = text.bytes();
  const Arguments& arguments = bound.all();
  TextBuilder out(run.budget);
  size_t next = 0;
  for (size_t at = 0; at < bytes.size() && !run.budget.exhausted();) {
    const size_t brace = std::min(bytes.find_first_of("{}", at), bytes.size());
    out.append(text, at, brace);
    if (brace == bytes.size()) break;
    if (brace + 1 < bytes.size() && bytes[brace + 1] == bytes[brace]) {  // {{ is {
      out.append(text, brace, brace + 1);
      at = brace + 2;
      continue;
    }
    const size_t close = bytes.find('}', brace);
    if (bytes[brace] == '}' || close == std::string_view::npos) return template_error("a single brace in format()");
    const std::string_view field = bytes.substr(brace + 1, close - brace - 1);
    const auto index = field.empty() ? std::optional<int64_t>(next++) : parse_integer(field, 10);
    const Value* value = nullptr;
    if (index.has_value() && *index >= 0 && static_cast<size_t>(*index) < arguments.values.size()) {
      value = &arguments.values[static_cast<size_t>(*index)];
    } else if (!index.has_value()) {
      value = arguments.find(field);
    }
    if (value == nullptr) return template_error("format(): nothing for {", field, "}");
    PKV_RETURN_IF_ERROR(append_text(*value, out));
    at = close + 1;
  }
  return same_kind(out.take(), self, run.budget);
}

constexpr Function kMethods[] = {
    {"upper", changed<to_upper>},
    {"lower", changed<to_lower>},
    {"casefold", changed<to_lower>},
    {"capitalize", changed<capitalize>},
    {"title", changed<title>},
    {"strip", stripped<Sides::kBoth>, {"chars"}},
    {"lstrip", stripped<Sides::kLeft>, {"chars"}},
    {"rstrip", stripped<Sides::kRight>, {"chars"}},
    {"replace", replaced, {"old", "new", "count"}, 2},
    {"split", parted<split>, {"sep", "maxsplit"}},
    {"rsplit", parted<split_from_right>, {"sep", "maxsplit"}},
    {"splitlines", lines, {"keepends"}},
    {"partition", partitioned<false>, {"sep"}, 1},
    {"rpartition", partitioned<true>, {"sep"}, 1},
    {"removeprefix", without<true>, {"prefix"}, 1},
    {"removesuffix", without<false>, {"suffix"}, 1},
    {"ljust", padded<Sides::kLeft>, {"width", "fillchar"}, 1},
    {"rjust", padded<Sides::kRight>, {"width", "fillchar"}, 1},
    {"center", padded<Sides::kBoth>, {"width", "fillchar"}, 1},
    {"zfill", zero_filled, {"width"}, 1},
    {"join", join, {"iterable"}, 1},
    {"format", format, {}, 0, /*variadic=*/true},
};

}  // namespace

FunctionTable string_methods() { return kMethods; }

}  // namespace pkv::jinja
