// Filters on lists and dicts.
#include <algorithm>

#include "kernels/status_macros.h"
#include "server/text/jinja/attribute_path.h"
#include "server/text/jinja/operations.h"
#include "server/text/jinja/string_functions.h"
#include "server/text/jinja/value_text.h"

namespace pkv::jinja {
namespace {

using Result = absl::StatusOr<Value>;

Result count(Run& run, const Value& self, const Bound&) {
  PKV_ASSIGN_OR_RETURN(const int64_t size, length(self, run.budget));
  return Value::of(size);
}

Result first(Run& run, const Value& self, const Bound&) {
  PKV_ASSIGN_OR_RETURN(const auto sequence, iterate(self, run.budget));
  return sequence->items.empty() ? Value() : sequence->items.front();
}

Result last(Run& run, const Value& self, const Bound&) {
  const Sequence* generator = self.sequence();
  if (generator != nullptr && generator->form == Sequence::Form::kGenerator) {
    return template_error("'generator' object is not reversible");
  }
  PKV_ASSIGN_OR_RETURN(const auto sequence, iterate(self, run.budget));
  return sequence->items.empty() ? Value() : sequence->items.back();
}

Result list(Run& run, const Value& self, const Bound&) {
  PKV_ASSIGN_OR_RETURN(const auto sequence, iterate(self, run.budget));
  return make_list(sequence->items, run.budget);
}

Result join(Run& run, const Value& self, const Bound& arguments) {
  Text separator;
  if (arguments[0] != nullptr) {
    PKV_ASSIGN_OR_RETURN(separator, to_text(*arguments[0], run.budget));
  }
  PKV_ASSIGN_OR_RETURN(const auto sequence, iterate(self, run.budget));
  TextBuilder out(run.budget);
  bool between = false;
  for (const Value& item : sequence->items) {
    if (run.budget.exhausted()) break;
    run.budget.spend(1);
    PKV_ASSIGN_OR_RETURN(const Value value, follow_path(item, arguments[1], nullptr, run.budget));
    if (std::exchange(between, true)) out.append(separator);
    PKV_RETURN_IF_ERROR(append_text(value, out));
  }
  return make_string(out.take(), run.budget);
}

Result reverse(Run& run, const Value& self, const Bound&) {
  PKV_ASSIGN_OR_RETURN(const auto sequence, iterate(self, run.budget));
  if (self.string() != nullptr) {
    TextBuilder out(run.budget);
    for (auto item = sequence->items.rbegin(); item != sequence->items.rend(); ++item) out.append(item->string()->text);
    return make_string(out.take(), run.budget, self.string()->markup);
  }
  std::vector<Value> items(sequence->items.rbegin(), sequence->items.rend());
  if (sequence->form == Sequence::Form::kGenerator) return make_list(std::move(items), run.budget);
  return make_generator(std::move(items), run.budget);
}

// What values are compared by: without their case, unless it counts.
Result sort_key(Run& run, const Value& item, const Value* path, bool case_sensitive) {
  PKV_ASSIGN_OR_RETURN(Value key, follow_path(item, path, nullptr, run.budget));
  const String* string = key.string();
  if (string == nullptr || case_sensitive) return key;
  return make_string(to_lower(string->text, run.budget), run.budget);
}

struct Keyed {
  Value key, item;
};

Result sorted(Run& run, std::vector<Keyed> items, bool reversed) {
  absl::Status failure;
  std::stable_sort(items.begin(), items.end(), [&](const Keyed& left, const Keyed& right) {
    if (!failure.ok()) return false;
    const auto result = reversed ? less(right.key, left.key, run.budget) : less(left.key, right.key, run.budget);
    if (!result.ok()) failure = result.status();
    return result.ok() && *result;
  });
  PKV_RETURN_IF_ERROR(failure);
  std::vector<Value> out;
  for (Keyed& item : items) out.push_back(std::move(item.item));
  return make_list(std::move(out), run.budget);
}

Result sort(Run& run, const Value& self, const Bound& arguments) {
  PKV_ASSIGN_OR_RETURN(const auto sequence, iterate(self, run.budget));
  std::vector<Value> paths = {Value::none()};
  if (arguments[2] != nullptr && arguments[2]->string() != nullptr) {  // "age,name"
    paths.clear();
    for (Text& path : split(arguments[2]->string()->text, Text(","), -1, run.budget)) {
      paths.push_back(make_string(std::move(path), run.budget));
    }
  } else if (arguments[2] != nullptr) {
    paths = {*arguments[2]};
  }
  std::vector<Keyed> items;
  for (const Value& item : sequence->items) {
    if (run.budget.exhausted()) break;
    std::vector<Value> keys;
    for (const Value& path : paths) {
      if (run.budget.exhausted()) break;
      PKV_ASSIGN_OR_RETURN(Value key, sort_key(run, item, &path, arguments.flag(1, false)));
      keys.push_back(std::move(key));
    }
    items.push_back({make_list(std::move(keys), run.budget), item});
  }
  return sorted(run, std::move(items), arguments.flag(0, false));
}

Value pair(const Value& key, const Value& value, Budget& budget) {
  return make_list({key, value}, budget, Sequence::Form::kTuple);
}

Result dict_sort(Run& run, const Value& self, const Bound& arguments) {
  const Dict* dict = self.dict();
  if (dict == nullptr) return template_error("dictsort needs a dict, not ", self.type());
  PKV_ASSIGN_OR_RETURN(const Text by, arguments.text(1, "key"));
  if (by.bytes() != "key" && by.bytes() != "value") return template_error("dictsort is by key or by value");
  std::vector<Keyed> items;
  for (const auto& [key, value] : dict->items) {
    if (run.budget.exhausted()) break;
    const Value& compared = by.bytes() == "key" ? key : value;
    PKV_ASSIGN_OR_RETURN(Value sort_by, sort_key(run, compared, nullptr, arguments.flag(0, false)));
    items.push_back({std::move(sort_by), pair(key, value, run.budget)});
  }
  return sorted(run, std::move(items), arguments.flag(2, false));
}

Result unique(Run& run, const Value& self, const Bound& arguments) {
  PKV_ASSIGN_OR_RETURN(const auto sequence, iterate(self, run.budget));
  std::vector<Value> keys, out;
  for (const Value& item : sequence->items) {
    PKV_ASSIGN_OR_RETURN(Value key, sort_key(run, item, arguments[1], arguments.flag(0, false)));
    PKV_RETURN_IF_ERROR(check_hashable(key));
    const bool known =
        std::any_of(keys.begin(), keys.end(), [&](const Value& old) { return equal(old, key, run.budget); });
    if (run.budget.exhausted()) break;
    if (known) continue;
    keys.push_back(std::move(key));
    out.push_back(item);
  }
  return make_generator(std::move(out), run.budget);
}

template <bool kLargest>
Result extreme(Run& run, const Value& self, const Bound& arguments) {
  PKV_ASSIGN_OR_RETURN(const auto sequence, iterate(self, run.budget));
  Value best, best_key;
  bool any = false;
  for (const Value& item : sequence->items) {
    if (run.budget.exhausted()) break;
    PKV_ASSIGN_OR_RETURN(Value key, sort_key(run, item, arguments[1], arguments.flag(0, false)));
    bool better = !any;
    if (any) {
      PKV_ASSIGN_OR_RETURN(better, kLargest ? less(best_key, key, run.budget) : less(key, best_key, run.budget));
    }
    any = true;
    if (!better) continue;
    best = item;
    best_key = std::move(key);
  }
  return best;
}

Result sum(Run& run, const Value& self, const Bound& arguments) {
  PKV_ASSIGN_OR_RETURN(const auto sequence, iterate(self, run.budget));
  Value total = arguments[1] == nullptr ? Value::of(int64_t{0}) : *arguments[1];
  if (total.string() != nullptr) return template_error("sum() can't sum strings");
  for (const Value& item : sequence->items) {
    if (run.budget.exhausted()) break;
    run.budget.spend(1);
    PKV_ASSIGN_OR_RETURN(const Value value, follow_path(item, arguments[0], nullptr, run.budget));
    PKV_ASSIGN_OR_RETURN(total, operate(BinaryOperator::kAdd, total, value, run.budget));
  }
  return total;
}

Result items(Run& run, const Value& self, const Bound&) {
  std::vector<Value> out;
  if (const Dict* dict = self.dict()) {
    for (const auto& [key, value] : dict->items) out.push_back(pair(key, value, run.budget));
  } else if (!self.is_undefined()) {
    return template_error("items needs a dict, not ", self.type());
  }
  return make_generator(std::move(out), run.budget);
}

Result default_value(Run& run, const Value& self, const Bound& arguments) {
  if (!self.is_undefined() && !(arguments.flag(1, false) && !self.truthy())) return self;
  return arguments[0] == nullptr ? make_string(Text(), run.budget) : *arguments[0];
}

// Lists of `linecount` items, the last one filled up with `fill_with`.
Result batch(Run& run, const Value& self, const Bound& arguments) {
  PKV_ASSIGN_OR_RETURN(const auto sequence, iterate(self, run.budget));
  PKV_ASSIGN_OR_RETURN(const int64_t size, arguments.integer(0, 0));
  if (size < 1 || size > 100000) return template_error("a batch of ", size);
  std::vector<Value> out, part;
  for (const Value& item : sequence->items) {
    if (run.budget.exhausted()) break;
    if (part.size() == static_cast<size_t>(size)) out.push_back(make_list(std::exchange(part, {}), run.budget));
    part.push_back(item);
  }
  const bool fill = arguments[1] != nullptr && !arguments[1]->is_none();
  if (!part.empty()) {
    if (fill) part.resize(static_cast<size_t>(size), *arguments[1]);
    out.push_back(make_list(std::move(part), run.budget));
  }
  return make_generator(std::move(out), run.budget);
}

constexpr Function kFilters[] = {
    {"length", count, {}, 0, false, true},
    {"count", count, {}, 0, false, true},
    {"first", first},
    {"last", last},
    {"list", list},
    {"join", join, {"d", "attribute"}},
    {"reverse", reverse},
    {"sort", sort, {"reverse", "case_sensitive", "attribute"}},
    {"dictsort", dict_sort, {"case_sensitive", "by", "reverse"}},
    {"unique", unique, {"case_sensitive", "attribute"}},
    {"min", extreme<false>, {"case_sensitive", "attribute"}},
    {"max", extreme<true>, {"case_sensitive", "attribute"}},
    {"sum", sum, {"attribute", "start"}},
    {"items", items},
    {"default", default_value, {"default_value", "boolean"}},
    {"d", default_value, {"default_value", "boolean"}},
    {"batch", batch, {"linecount", "fill_with"}, 1},
};

}  // namespace

FunctionTable sequence_filters() { return kFilters; }

}  // namespace pkv::jinja
