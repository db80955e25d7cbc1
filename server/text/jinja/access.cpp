// Attributes, items, slices, iteration. As Jinja has it, x.y looks for a method first and then for an item, x['y'] the
// other way round, and what neither finds is undefined.
#include <algorithm>

#include "kernels/status_macros.h"
#include "server/text/jinja/callable.h"
#include "server/text/jinja/characters.h"
#include "server/text/jinja/operations.h"
#include "server/text/jinja/words.h"

namespace pkv::jinja {
namespace {

const char* owner_name(const Value& object) {
  if (object.string() != nullptr) return "str object";
  if (object.dict() != nullptr) return "dict object";
  if (object.sequence() != nullptr) return "list object";
  if (object.is_none()) return "None";
  return "object";
}

Value bind_method(const Function& method, const Value& self, Budget& budget) {
  Charge charge(&budget);
  if (!budget.allows_depth(self.depth() + 1) || !charge.take(kBlockBytes + sizeof(Callable))) return Value();
  return Value(
      std::make_shared<const Callable>(Callable{.function = &method, .self = self, .charge = std::move(charge)}));
}

Value loop_attribute(const Loop& loop, std::string_view name) {
  const auto index = static_cast<int64_t>(loop.index), length = static_cast<int64_t>(loop.items->items.size());
  if (name == "index") return Value::of(index + 1);
  if (name == "index0") return Value::of(index);
  if (name == "revindex") return Value::of(length - index);
  if (name == "revindex0") return Value::of(length - index - 1);
  if (name == "first") return Value::of(index == 0);
  if (name == "last") return Value::of(index + 1 == length);
  if (name == "length") return Value::of(length);
  if (name == "depth") return Value::of(int64_t{1});  // of recursive loops, which there are none of
  if (name == "depth0") return Value::of(int64_t{0});
  if (name == "previtem" && index > 0) return loop.items->items[loop.index - 1];
  if (name == "nextitem" && index + 1 < length) return loop.items->items[loop.index + 1];
  return Value();
}

// An item by name: of a dict, a namespace, a loop.
Value named_item(const Value& object, std::string_view name, Budget& budget) {
  if (const Dict* dict = object.dict()) {
    budget.spend_values(dict->items.size());
    if (const Value* found = dict->find(name)) return *found;
  } else if (Namespace* space = object.name_space()) {
    budget.spend_values(space->attributes.size());
    if (const Value* found = space->find(name)) return *found;
  } else if (const Loop* loop = object.loop()) {
    return loop_attribute(*loop, name);
  }
  return Value();
}

// Where counting from the end is meant by negative numbers.
std::optional<size_t> resolve_index(int64_t index, size_t count) {
  if (index < 0) index += static_cast<int64_t>(count);
  if (index < 0 || index >= static_cast<int64_t>(count)) return std::nullopt;
  return static_cast<size_t>(index);
}

Value character_at(const String& string, int64_t index, Budget& budget) {
  const std::string_view bytes = string.text.bytes();
  budget.spend_bytes(bytes.size());
  const auto at = resolve_index(index, count_characters(bytes));
  if (!at.has_value()) return Value();
  const size_t begin = character_offset(bytes, *at);
  const size_t end = begin + next_character(bytes.substr(begin)).bytes;
  return make_string(string.text.substr(begin, end), budget, string.markup);
}

struct Steps {
  int64_t start, stop, step;
};

// Python's slice.indices().
absl::StatusOr<Steps> slice_steps(const Value& start, const Value& stop, const Value& step, size_t size) {
  for (const Value* bound : {&start, &stop, &step}) {
    PKV_RETURN_IF_ERROR(undefined_error(*bound));
    if (!bound->is_none() && !bound->as_integer().has_value()) {
      return template_error("slice indices must be integers or None");
    }
  }
  const auto count = static_cast<int64_t>(size);
  Steps steps{.start = 0, .stop = 0, .step = step.is_none() ? 1 : *step.as_integer()};
  if (steps.step == 0) return template_error("slice step cannot be zero");
  steps.step = std::clamp(steps.step, -count - 1, count + 1);
  const int64_t least = steps.step < 0 ? -1 : 0, most = steps.step < 0 ? count - 1 : count;
  auto resolve = [&](const Value& bound, int64_t otherwise) {
    if (bound.is_none()) return otherwise;
    const int64_t value = *bound.as_integer();
    if (value < 0) return value < -count ? least : std::max(value + count, least);
    return std::min(value, most);
  };
  steps.start = resolve(start, steps.step < 0 ? most : least);
  steps.stop = resolve(stop, steps.step < 0 ? least : most);
  return steps;
}

Value slice_text(const String& string, const Steps& steps, Budget& budget) {
  const std::string_view bytes = string.text.bytes();
  if (steps.step == 1) {
    const size_t begin = character_offset(bytes, static_cast<size_t>(steps.start));
    const size_t end =
        steps.stop <= steps.start
            ? begin
            : begin + character_offset(bytes.substr(begin), static_cast<size_t>(steps.stop - steps.start));
    return make_string(string.text.substr(begin, end), budget, string.markup);
  }
  std::vector<size_t> offsets;
  Charge charge(&budget);
  if (!charge.take((bytes.size() + 1) * sizeof(size_t))) return Value();
  for (size_t at = 0; at < bytes.size(); at += next_character(bytes.substr(at)).bytes) offsets.push_back(at);
  offsets.push_back(bytes.size());
  TextBuilder out(budget);
  for (int64_t i = steps.start; steps.step > 0 ? i < steps.stop : i > steps.stop; i += steps.step) {
    budget.spend(1);
    out.append(string.text, offsets[static_cast<size_t>(i)], offsets[static_cast<size_t>(i) + 1]);
    if (budget.exhausted()) break;
  }
  return make_string(out.take(), budget, string.markup);
}

std::vector<Value> characters_of(const String& string, Budget& budget) {
  std::vector<Value> items;
  const std::string_view bytes = string.text.bytes();
  for (size_t at = 0; at < bytes.size() && !budget.exhausted();) {
    const size_t end = at + next_character(bytes.substr(at)).bytes;
    budget.spend(1);
    items.push_back(make_string(string.text.substr(at, end), budget, string.markup));
    at = end;
  }
  return items;
}

}  // namespace

absl::Status undefined_error(const Value& value) {
  const Undefined* undefined = value.undefined();
  if (undefined == nullptr) return absl::OkStatus();
  const std::string name = undefined->name == nullptr ? "" : words("'", *undefined->name, "'");
  if (undefined->owner != nullptr) {
    if (name.empty()) return template_error("'", undefined->owner, "' has no such element");
    return template_error("'", undefined->owner, "' has no attribute ", name);
  }
  return name.empty() ? template_error("a value is undefined") : template_error(name, " is undefined");
}

absl::StatusOr<Value> get_attribute(const Value& object, std::string_view name, Budget& budget) {
  PKV_RETURN_IF_ERROR(undefined_error(object));
  if (const Function* method = find_method(object, name)) return bind_method(*method, object, budget);
  Value found = named_item(object, name, budget);
  if (found.is_undefined()) return Value(Undefined{.owner = owner_name(object)});
  return found;
}

absl::StatusOr<Value> get_item(const Value& object, const Value& key, Budget& budget) {
  PKV_RETURN_IF_ERROR(undefined_error(object));
  if (const String* name = key.string()) {
    Value found = named_item(object, name->text.bytes(), budget);
    if (!found.is_undefined()) return found;
    return get_attribute(object, name->text.bytes(), budget);
  }
  const Value missing(Undefined{.owner = owner_name(object)});
  if (const Dict* dict = object.dict()) {
    for (const auto& [candidate, value] : dict->items) {
      if (equal(candidate, key, budget)) return value;
    }
    return missing;
  }
  const auto index = key.as_integer();
  if (!index.has_value()) return missing;
  if (const String* string = object.string()) {
    Value character = character_at(*string, *index, budget);
    return character.is_undefined() ? missing : character;
  }
  const Sequence* sequence = object.sequence();
  if (sequence == nullptr || sequence->form > Sequence::Form::kRange) return missing;
  const auto at = resolve_index(*index, sequence->items.size());
  return at.has_value() ? sequence->items[*at] : missing;
}

absl::StatusOr<Value> get_slice(const Value& object, const Value& start, const Value& stop, const Value& step,
                                Budget& budget) {
  PKV_RETURN_IF_ERROR(undefined_error(object));
  if (const String* string = object.string()) {
    budget.spend_bytes(2 * string->text.size());
    PKV_ASSIGN_OR_RETURN(const Steps steps, slice_steps(start, stop, step, count_characters(string->text.bytes())));
    return slice_text(*string, steps, budget);
  }
  const Sequence* sequence = object.sequence();
  if (sequence == nullptr || sequence->form > Sequence::Form::kRange) {
    return template_error("'", object.type(), "' object cannot be sliced");
  }
  PKV_ASSIGN_OR_RETURN(const Steps steps, slice_steps(start, stop, step, sequence->items.size()));
  std::vector<Value> items;
  for (int64_t i = steps.start; steps.step > 0 ? i < steps.stop : i > steps.stop; i += steps.step) {
    items.push_back(sequence->items[static_cast<size_t>(i)]);
  }
  const bool tuple = sequence->form == Sequence::Form::kTuple;
  return make_list(std::move(items), budget, tuple ? Sequence::Form::kTuple : Sequence::Form::kList);
}

bool is_iterable(const Value& value) {
  return value.is_undefined() || value.string() != nullptr || value.sequence() != nullptr || value.dict() != nullptr;
}

absl::StatusOr<std::shared_ptr<const Sequence>> iterate(const Value& value, Budget& budget) {
  if (const auto* held = std::get_if<std::shared_ptr<const Sequence>>(&value.storage())) {
    const Sequence& sequence = **held;
    if (sequence.form != Sequence::Form::kGenerator) return *held;
    if (!std::exchange(sequence.used, true)) return *held;
    return std::make_shared<const Sequence>();
  }
  std::vector<Value> items;
  if (const String* string = value.string()) {
    items = characters_of(*string, budget);
  } else if (const Dict* dict = value.dict()) {
    for (const auto& [key, unused] : dict->items) items.push_back(key);
  } else if (!value.is_undefined()) {
    return template_error("'", value.type(), "' object is not iterable");
  }
  const Value list = make_list(std::move(items), budget);
  return std::get<std::shared_ptr<const Sequence>>(list.storage());
}

absl::StatusOr<int64_t> length(const Value& value, Budget& budget) {
  if (value.is_undefined()) return 0;
  if (const String* string = value.string()) {
    budget.spend_bytes(string->text.size());
    return static_cast<int64_t>(count_characters(string->text.bytes()));
  }
  if (const Dict* dict = value.dict()) return static_cast<int64_t>(dict->items.size());
  if (const Loop* loop = value.loop()) return static_cast<int64_t>(loop->items->items.size());
  const Sequence* sequence = value.sequence();
  if (sequence != nullptr && sequence->form != Sequence::Form::kGenerator) {
    return static_cast<int64_t>(sequence->items.size());
  }
  return template_error("object of type '", value.type(), "' has no len()");
}

}  // namespace pkv::jinja
