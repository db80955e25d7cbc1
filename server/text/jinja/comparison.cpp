// ==, < and `in`.
#include "kernels/status_macros.h"
#include "server/text/jinja/callable.h"
#include "server/text/jinja/operations.h"
#include "server/text/jinja/search.h"

namespace pkv::jinja {
namespace {

bool equal_items(const std::vector<Value>& left, const std::vector<Value>& right, Budget& budget) {
  if (left.size() != right.size()) return false;
  for (size_t i = 0; i < left.size(); ++i) {
    if (!equal(left[i], right[i], budget)) return false;
  }
  return true;
}

const Value* find_key(const std::vector<std::pair<Value, Value>>& items, const Value& key, Budget& budget) {
  for (const auto& [name, value] : items) {
    if (equal(name, key, budget)) return &value;
    if (budget.exhausted()) break;
  }
  return nullptr;
}

bool equal_dicts(const Dict& left, const Dict& right, Budget& budget) {
  if (left.items.size() != right.items.size()) return false;
  for (const auto& [key, value] : left.items) {
    const Value* other = find_key(right.items, key, budget);
    if (other == nullptr || !equal(value, *other, budget)) return false;
  }
  return true;
}

bool equal_sequences(const Sequence& left, const Sequence& right, Budget& budget) {
  if (&left == &right) return true;
  return left.form == right.form && left.form <= Sequence::Form::kRange && equal_items(left.items, right.items, budget);
}

absl::StatusOr<bool> less_items(const std::vector<Value>& left, const std::vector<Value>& right, Budget& budget) {
  for (size_t i = 0; i < left.size() && i < right.size(); ++i) {
    if (!equal(left[i], right[i], budget)) return less(left[i], right[i], budget);
  }
  return left.size() < right.size();
}

}  // namespace

bool equal(const Value& left, const Value& right, Budget& budget) {
  budget.spend(1);
  if (budget.exhausted()) return false;
  if (left.is_undefined() || right.is_undefined()) return left.is_undefined() && right.is_undefined();
  if (left.is_none() || right.is_none()) return left.is_none() && right.is_none();
  if (const auto a = left.as_integer(), b = right.as_integer(); a.has_value() && b.has_value()) return *a == *b;
  if (const auto a = left.as_real(), b = right.as_real(); a.has_value() && b.has_value()) return *a == *b;
  if (const String* a = left.string(), *b = right.string(); a != nullptr && b != nullptr) {
    budget.spend_bytes(a->text.size());
    return a->text.bytes() == b->text.bytes();
  }
  if (const Sequence* a = left.sequence(), *b = right.sequence(); a != nullptr && b != nullptr) {
    return equal_sequences(*a, *b, budget);
  }
  if (const Dict* a = left.dict(), *b = right.dict(); a != nullptr && b != nullptr) return equal_dicts(*a, *b, budget);
  if (left.name_space() != nullptr) return left.name_space() == right.name_space();
  if (left.loop() != nullptr) return left.loop() == right.loop();
  if (const Callable* a = left.callable(), *b = right.callable(); a != nullptr && b != nullptr) {
    return a->function == b->function && a->macro == b->macro && equal(a->self, b->self, budget);
  }
  return false;
}

absl::StatusOr<bool> less(const Value& left, const Value& right, Budget& budget) {
  budget.spend(1);
  if (budget.exhausted()) return budget.status();
  PKV_RETURN_IF_ERROR(undefined_error(left));
  PKV_RETURN_IF_ERROR(undefined_error(right));
  if (const auto a = left.as_integer(), b = right.as_integer(); a.has_value() && b.has_value()) return *a < *b;
  if (const auto a = left.as_real(), b = right.as_real(); a.has_value() && b.has_value()) return *a < *b;
  if (const String* a = left.string(), *b = right.string(); a != nullptr && b != nullptr) {
    budget.spend_bytes(a->text.size());
    return a->text.bytes() < b->text.bytes();  // as by code points
  }
  const Sequence *a = left.sequence(), *b = right.sequence();
  if (a != nullptr && b != nullptr && a->form == b->form && a->form <= Sequence::Form::kTuple) {
    return less_items(a->items, b->items, budget);
  }
  return template_error("'<' not supported between instances of '", left.type(), "' and '", right.type(), "'");
}

absl::StatusOr<bool> less_equal(const Value& left, const Value& right, Budget& budget) {
  PKV_ASSIGN_OR_RETURN(const bool smaller, less(left, right, budget));
  return smaller || equal(left, right, budget);
}

absl::StatusOr<bool> contains(const Value& container, const Value& item, Budget& budget) {
  if (const String* text = container.string()) {
    const String* part = item.string();
    if (part == nullptr) {
      return template_error("'in <string>' requires string as left operand, not ", item.type());
    }
    return find_bytes(text->text.bytes(), part->text.bytes(), 0, budget) != std::string_view::npos;
  }
  if (const Dict* dict = container.dict()) {
    PKV_RETURN_IF_ERROR(check_hashable(item));
    return find_key(dict->items, item, budget) != nullptr;
  }
  if (!is_iterable(container)) return template_error("argument of type '", container.type(), "' is not iterable");
  PKV_ASSIGN_OR_RETURN(const auto sequence, iterate(container, budget));
  for (const Value& candidate : sequence->items) {
    if (equal(candidate, item, budget)) return true;
    if (budget.exhausted()) return budget.status();
  }
  return false;
}

absl::Status check_hashable(const Value& key) {
  const Sequence* sequence = key.sequence();
  if (key.dict() != nullptr || (sequence != nullptr && sequence->form == Sequence::Form::kList)) {
    return template_error("unhashable type: '", key.type(), "'");
  }
  if (sequence != nullptr && sequence->form == Sequence::Form::kTuple) {
    for (const Value& item : sequence->items) PKV_RETURN_IF_ERROR(check_hashable(item));
  }
  return absl::OkStatus();
}

void insert(std::vector<std::pair<Value, Value>>& items, Value key, Value value, Budget& budget) {
  for (auto& [name, old] : items) {
    if (equal(name, key, budget)) {
      old = std::move(value);
      return;
    }
    if (budget.exhausted()) return;
  }
  items.emplace_back(std::move(key), std::move(value));
}

}  // namespace pkv::jinja
