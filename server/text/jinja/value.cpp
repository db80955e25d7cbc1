#include "server/text/jinja/value.h"

#include <algorithm>

#include "server/text/jinja/callable.h"

namespace pkv::jinja {
namespace {

int depth_of(const std::vector<Value>& items) {
  int depth = 0;
  for (const Value& item : items) depth = std::max(depth, item.depth());
  return depth + 1;
}

Value make_sequence(Sequence sequence, Budget& budget) {
  budget.spend(1);
  budget.spend_values(sequence.items.size());
  sequence.charge = Charge(&budget);
  if (!sequence.charge.take(kBlockBytes + sizeof(Sequence) + sequence.items.size() * sizeof(Value)))
    sequence.items.clear();
  if (!budget.allows_depth(depth_of(sequence.items))) sequence.items.clear();
  sequence.depth = depth_of(sequence.items);
  return Value(std::make_shared<const Sequence>(std::move(sequence)));
}

}  // namespace

const Value* Dict::find(std::string_view key) const {
  for (const auto& [name, value] : items) {
    const String* string = name.string();
    if (string != nullptr && string->text.bytes() == key) return &value;
  }
  return nullptr;
}

Value* Namespace::find(std::string_view name) {
  for (auto& [key, value] : attributes) {
    if (key == name) return &value;
  }
  return nullptr;
}

Value Value::string(Text text) {
  auto string = std::make_shared<String>();
  string->text = std::move(text);
  return Value(std::shared_ptr<const String>(std::move(string)));
}

Value Value::list(std::vector<Value> items) {
  auto list = std::make_shared<Sequence>();
  list->items = std::move(items);
  list->depth = depth_of(list->items);
  return Value(std::shared_ptr<const Sequence>(std::move(list)));
}

Value Value::dict(std::vector<std::pair<std::string, Value>> items, Source source) {
  auto dict = std::make_shared<Dict>();
  dict->source = source;
  for (auto& [key, value] : items) {
    dict->depth = std::max(dict->depth, value.depth() + 1);
    dict->items.emplace_back(string(Text(std::move(key))), std::move(value));
  }
  return Value(std::shared_ptr<const Dict>(std::move(dict)));
}

Namespace* Value::name_space() const {
  auto* const* held = std::get_if<Namespace*>(&storage_);
  return held == nullptr ? nullptr : *held;
}

std::optional<int64_t> Value::as_integer() const {
  if (const int64_t* value = integer()) return *value;
  if (const bool* value = boolean()) return *value ? 1 : 0;
  return std::nullopt;
}

std::optional<double> Value::as_real() const {
  if (const double* value = real()) return *value;
  if (const auto value = as_integer()) return static_cast<double>(*value);
  return std::nullopt;
}

bool Value::truthy() const {
  if (is_undefined() || is_none()) return false;
  if (const auto value = as_real()) return *value != 0;
  if (const String* value = string()) return !value->text.empty();
  if (const Sequence* value = sequence()) return value->form == Sequence::Form::kGenerator || !value->items.empty();
  if (const Dict* value = dict()) return !value->items.empty();
  return true;
}

int Value::depth() const {
  if (const Sequence* value = sequence()) return value->depth;
  if (const Dict* value = dict()) return value->depth;
  if (const Loop* value = loop()) return value->items->depth + 1;
  if (const Callable* value = callable()) return value->self.depth() + 1;
  return 0;
}

std::string_view Value::type() const {
  switch (storage_.index()) {
    case 0:
      return "Undefined";
    case 1:
      return "NoneType";
    case 2:
      return "bool";
    case 3:
      return "int";
    case 4:
      return "float";
    case 5:
      return string()->markup ? "Markup" : "str";
    case 6:
      break;
    case 7:
      return "dict";
    case 8:
      return "Namespace";
    case 9:
      return "LoopContext";
    default:
      return "function";
  }
  switch (sequence()->form) {
    case Sequence::Form::kList:
      return "list";
    case Sequence::Form::kTuple:
      return "tuple";
    case Sequence::Form::kRange:
      return "range";
    case Sequence::Form::kDictView:
      return sequence()->view;
    case Sequence::Form::kGenerator:
      return "generator";
  }
  return "";
}

Value make_string(Text text, Budget& budget, bool markup) {
  auto string = std::make_shared<String>();
  string->charge = Charge(&budget);
  string->markup = markup;
  if (string->charge.take(kBlockBytes + sizeof(String) + text.memory())) string->text = std::move(text);
  return Value(std::shared_ptr<const String>(std::move(string)));
}

Value make_list(std::vector<Value> items, Budget& budget, Sequence::Form form) {
  return make_sequence({.form = form, .items = std::move(items)}, budget);
}

Value make_view(std::vector<Value> items, std::string_view view, Budget& budget) {
  return make_sequence({.form = Sequence::Form::kDictView, .items = std::move(items), .view = view}, budget);
}

Value make_range(std::vector<Value> items, int64_t start, int64_t stop, int64_t step, Budget& budget) {
  return make_sequence(
      {.form = Sequence::Form::kRange, .items = std::move(items), .start = start, .stop = stop, .step = step}, budget);
}

Value make_generator(std::vector<Value> items, Budget& budget) {
  return make_list(std::move(items), budget, Sequence::Form::kGenerator);
}

Value make_dict(std::vector<std::pair<Value, Value>> items, Budget& budget) {
  auto dict = std::make_shared<Dict>();
  budget.spend_values(2 * items.size());
  dict->charge = Charge(&budget);
  if (!dict->charge.take(kBlockBytes + sizeof(Dict) + items.size() * sizeof(items[0]))) items.clear();
  for (const auto& [key, value] : items) {
    dict->depth = std::max({dict->depth, key.depth() + 1, value.depth() + 1});
  }
  if (budget.allows_depth(dict->depth)) {
    dict->items = std::move(items);
  } else {
    dict->depth = 1;
  }
  return Value(std::shared_ptr<const Dict>(std::move(dict)));
}

}  // namespace pkv::jinja
