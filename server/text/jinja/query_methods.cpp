// Methods of str that answer questions, and those of list, dict and loop.
#include "kernels/status_macros.h"
#include "server/text/jinja/characters.h"
#include "server/text/jinja/operations.h"
#include "server/text/jinja/search.h"
#include "server/text/jinja/string_functions.h"

namespace pkv::jinja {
namespace {

using Result = absl::StatusOr<Value>;

const std::string& bytes_of(const Value& self) { return self.string()->text.bytes(); }

template <bool kFront>
bool has_affix(std::string_view text, std::string_view affix) {
  return kFront ? text.starts_with(affix) : text.ends_with(affix);
}

// Of one string, or any of a tuple.
template <bool kFront>
Result begins_or_ends(Run& run, const Value& self, const Bound& arguments) {
  const Sequence* several = arguments[0]->sequence();
  if (several == nullptr || several->form != Sequence::Form::kTuple) {
    PKV_ASSIGN_OR_RETURN(const Text affix, arguments.text(0));
    return Value::of(has_affix<kFront>(bytes_of(self), affix.bytes()));
  }
  run.budget.spend_values(several->items.size());
  for (const Value& affix : several->items) {
    if (affix.string() == nullptr) return template_error("a string is needed, not ", affix.type());
    if (has_affix<kFront>(bytes_of(self), affix.string()->text.bytes())) return Value::of(true);
  }
  return Value::of(false);
}

enum class Missing : uint8_t { kMinusOne, kError };

// The index of a character.
template <bool kFromRight, Missing kMissing>
Result find(Run& run, const Value& self, const Bound& arguments) {
  PKV_ASSIGN_OR_RETURN(const Text part, arguments.text(0));
  const std::string_view text = bytes_of(self);
  const size_t at = kFromRight ? find_last_bytes(text, part.bytes(), text.size(), run.budget)
                               : find_bytes(text, part.bytes(), 0, run.budget);
  if (at != std::string_view::npos) return Value::of(static_cast<int64_t>(count_characters(text.substr(0, at))));
  if (kMissing == Missing::kError) return template_error("substring not found");
  return Value::of(int64_t{-1});
}

Result count_parts(Run& run, const Value& self, const Bound& arguments) {
  PKV_ASSIGN_OR_RETURN(const Text part, arguments.text(0));
  const std::string_view text = bytes_of(self);
  if (part.empty()) return Value::of(static_cast<int64_t>(count_characters(text)) + 1);
  int64_t count = 0;
  for (size_t at = 0; !run.budget.exhausted(); ++count) {
    at = find_bytes(text, part.bytes(), at, run.budget);
    if (at == std::string_view::npos) break;
    at += part.size();
  }
  return Value::of(count);
}

template <bool (*kHolds)(std::string_view)>
Result text_is(Run& run, const Value& self, const Bound&) {
  run.budget.spend_bytes(4 * bytes_of(self).size());
  return Value::of(kHolds(bytes_of(self)));
}

bool all_digits(std::string_view text) {
  return !text.empty() && text.find_first_not_of("0123456789") == std::string_view::npos;
}

bool all_spaces(std::string_view text) { return !text.empty() && strip_begin(text).empty(); }

Result get(Run& run, const Value& self, const Bound& arguments) {
  PKV_RETURN_IF_ERROR(check_hashable(*arguments[0]));
  for (const auto& [key, value] : self.dict()->items) {
    if (equal(key, *arguments[0], run.budget)) return value;
  }
  return arguments[1] == nullptr ? Value::none() : *arguments[1];
}

Result items(Run& run, const Value& self, const Bound&) {
  std::vector<Value> out;
  for (const auto& [key, value] : self.dict()->items) {
    out.push_back(make_list({key, value}, run.budget, Sequence::Form::kTuple));
  }
  return make_view(std::move(out), "dict_items", run.budget);
}

Result keys(Run& run, const Value& self, const Bound&) {
  std::vector<Value> out;
  for (const auto& [key, value] : self.dict()->items) out.push_back(key);
  return make_view(std::move(out), "dict_keys", run.budget);
}

Result values(Run& run, const Value& self, const Bound&) {
  std::vector<Value> out;
  for (const auto& [key, value] : self.dict()->items) out.push_back(value);
  return make_view(std::move(out), "dict_values", run.budget);
}

Result same(Run&, const Value& self, const Bound&) { return self; }

Result count_items(Run& run, const Value& self, const Bound& arguments) {
  int64_t count = 0;
  for (const Value& item : self.sequence()->items) count += equal(item, *arguments[0], run.budget) ? 1 : 0;
  return Value::of(count);
}

Result index_of(Run& run, const Value& self, const Bound& arguments) {
  const std::vector<Value>& all = self.sequence()->items;
  for (size_t i = 0; i < all.size(); ++i) {
    if (equal(all[i], *arguments[0], run.budget)) return Value::of(static_cast<int64_t>(i));
  }
  return template_error("the value is not in the list");
}

Result cycle(Run&, const Value& self, const Bound& bound) {
  const std::vector<Value>& all = bound.all().values;
  if (all.empty()) return template_error("no items for cycling given");
  return all[self.loop()->index % all.size()];
}

constexpr Function kStringMethods[] = {
    {"startswith", begins_or_ends<true>, {"prefix"}, 1},
    {"endswith", begins_or_ends<false>, {"suffix"}, 1},
    {"find", find<false, Missing::kMinusOne>, {"sub"}, 1},
    {"rfind", find<true, Missing::kMinusOne>, {"sub"}, 1},
    {"index", find<false, Missing::kError>, {"sub"}, 1},
    {"rindex", find<true, Missing::kError>, {"sub"}, 1},
    {"count", count_parts, {"sub"}, 1},
    {"isdigit", text_is<all_digits>},
    {"isspace", text_is<all_spaces>},
    {"isupper", text_is<is_upper>},
    {"islower", text_is<is_lower>},
};

constexpr Function kDictMethods[] = {
    {"get", get, {"key", "default"}, 1}, {"items", items}, {"keys", keys}, {"values", values}, {"copy", same},
};

constexpr Function kSequenceMethods[] = {
    {"count", count_items, {"value"}, 1},
    {"index", index_of, {"value"}, 1},
};

constexpr Function kLoopMethods[] = {
    {"cycle", cycle, {}, 0, /*variadic=*/true},
};

}  // namespace

FunctionTable string_query_methods() { return kStringMethods; }
FunctionTable dict_methods() { return kDictMethods; }
FunctionTable sequence_methods() { return kSequenceMethods; }
FunctionTable loop_methods() { return kLoopMethods; }

}  // namespace pkv::jinja
