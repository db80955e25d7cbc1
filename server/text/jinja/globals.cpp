// range, namespace, dict, raise_exception, strftime_now.
#include <algorithm>

#include "kernels/status_macros.h"
#include "server/text/jinja/characters.h"
#include "server/text/jinja/operations.h"
#include "server/text/jinja/value_text.h"

namespace pkv::jinja {
namespace {

using Result = absl::StatusOr<Value>;

constexpr int64_t kMaxRange = 100000;  // as Jinja's sandbox has it
constexpr size_t kMaxMessage = 500;    // bytes of raise_exception's words

Result range(Run& run, const Value&, const Bound& arguments) {
  PKV_ASSIGN_OR_RETURN(const int64_t first, arguments.integer(0, 0));
  PKV_ASSIGN_OR_RETURN(const int64_t second, arguments.integer(1, 0));
  PKV_ASSIGN_OR_RETURN(const int64_t step, arguments.integer(2, 1));
  const int64_t start = arguments[1] == nullptr ? 0 : first;
  const int64_t stop = arguments[1] == nullptr ? first : second;
  if (step == 0) return template_error("range() arg 3 must not be zero");
  std::vector<Value> items;
  int64_t at = start;
  while (step > 0 ? at < stop : at > stop) {
    if (items.size() == static_cast<size_t>(kMaxRange)) return template_error("a range of more than ", kMaxRange);
    items.push_back(Value::of(at));
    if (__builtin_add_overflow(at, step, &at)) break;
  }
  return make_range(std::move(items), start, stop, step, run.budget);
}

// namespace(a=1) and namespace({'a': 1}).
Result make_namespace(Run& run, const Value&, const Bound& bound) {
  Namespace* space = run.new_namespace();
  const auto add = [&](const std::string& name, const Value& value) {
    run.budget.spend_values(space->attributes.size());
    if (Value* old = space->find(name)) {
      *old = value;
    } else if (space->charge.take(2 * sizeof(space->attributes[0]) + name.size())) {
      space->attributes.emplace_back(name, value);
    }
  };
  for (const Value& value : bound.all().values) {
    const Dict* dict = value.dict();
    if (dict == nullptr) return template_error("namespace takes a dict or names, not ", value.type());
    for (const auto& [key, item] : dict->items) {
      if (key.string() != nullptr) add(key.string()->text.bytes(), item);
    }
  }
  for (const auto& [name, value] : bound.all().named) add(name, value);
  return Value(Value::Storage(space));
}

Result make_dictionary(Run& run, const Value&, const Bound& bound) {
  const Arguments& arguments = bound.all();
  std::vector<std::pair<Value, Value>> items;
  if (arguments.values.size() > 1) return template_error("dict expected at most 1 argument");
  if (!arguments.values.empty()) {
    const Value& from = arguments.values[0];
    if (const Dict* dict = from.dict()) {
      items = dict->items;
    } else {
      PKV_ASSIGN_OR_RETURN(const auto pairs, iterate(from, run.budget));
      for (const Value& item : pairs->items) {
        PKV_ASSIGN_OR_RETURN(const auto two, iterate(item, run.budget));
        if (two->items.size() != 2) return template_error("dict needs pairs");
        PKV_RETURN_IF_ERROR(check_hashable(two->items[0]));
        insert(items, two->items[0], two->items[1], run.budget);
      }
    }
  }
  for (const auto& [name, value] : arguments.named) {
    insert(items, make_string(Text(name), run.budget), value, run.budget);
  }
  return make_dict(std::move(items), run.budget);
}

Result raise_exception(Run& run, const Value&, const Bound& arguments) {
  PKV_ASSIGN_OR_RETURN(const Text words, to_text(*arguments[0], run.budget));
  std::string message = words.bytes();
  if (message.size() > kMaxMessage) {
    size_t end = 0;
    while (end + next_character(std::string_view(message).substr(end)).bytes <= kMaxMessage) {
      end += next_character(std::string_view(message).substr(end)).bytes;
    }
    message.resize(end);
  }
  return absl::InvalidArgumentError(message);
}

Result strftime_now(Run& run, const Value&, const Bound& arguments) {
  PKV_ASSIGN_OR_RETURN(const Text format, arguments.text(0));
  char buffer[1024];
  if (format.empty()) return make_string(Text(), run.budget);
  const size_t size = std::strftime(buffer, sizeof buffer, format.bytes().c_str(), &*run.now);
  if (size == 0) return template_error("a time of more than ", sizeof buffer, " bytes");
  return make_string(Text(std::string(buffer, size), format.source_at(0)), run.budget);
}

constexpr Function kGlobals[] = {
    {"range", range, {"start", "stop", "step"}, 1}, {"namespace", make_namespace, {}, 0, true},
    {"dict", make_dictionary, {}, 0, true},         {"raise_exception", raise_exception, {"message"}, 1},
    {"strftime_now", strftime_now, {"format"}, 1},
};

}  // namespace

const Function* find_global(std::string_view name) { return find_function(kGlobals, name); }

}  // namespace pkv::jinja
