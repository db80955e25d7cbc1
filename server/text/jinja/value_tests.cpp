// What stands behind `is`: defined, string, mapping...
#include "kernels/status_macros.h"
#include "server/text/jinja/operations.h"
#include "server/text/jinja/string_functions.h"
#include "server/text/jinja/value_text.h"

namespace pkv::jinja {
namespace {

using Result = absl::StatusOr<Value>;

template <bool (*kHolds)(const Value&)>
Result test(Run&, const Value& self, const Bound&) {
  return Value::of(kHolds(self));
}

bool is_defined(const Value& value) { return !value.is_undefined(); }
bool is_undefined(const Value& value) { return value.is_undefined(); }
bool is_none(const Value& value) { return value.is_none(); }
bool is_boolean(const Value& value) { return value.boolean() != nullptr; }
bool is_true(const Value& value) { return is_boolean(value) && *value.boolean(); }
bool is_false(const Value& value) { return is_boolean(value) && !*value.boolean(); }
bool is_integer(const Value& value) { return value.integer() != nullptr; }
bool is_float(const Value& value) { return value.real() != nullptr; }
bool is_number(const Value& value) { return value.as_real().has_value(); }
bool is_string(const Value& value) { return value.string() != nullptr; }
bool is_mapping(const Value& value) { return value.dict() != nullptr; }
bool can_iterate(const Value& value) { return is_iterable(value) || value.loop() != nullptr; }
bool is_callable(const Value& value) { return value.callable() != nullptr; }

bool is_sequence(const Value& value) {
  const Sequence* sequence = value.sequence();
  if (sequence != nullptr) return sequence->form <= Sequence::Form::kRange;
  return value.is_undefined() || value.string() != nullptr || value.dict() != nullptr;
}

template <bool (*kHolds)(std::string_view)>
Result test_text(Run& run, const Value& self, const Bound&) {
  PKV_ASSIGN_OR_RETURN(const Text text, to_text(self, run.budget));
  run.budget.spend_bytes(4 * text.size());
  return Value::of(kHolds(text.bytes()));
}

Result leaves_rest(Run& run, const Value& self, const Value& divisor, int64_t rest) {
  PKV_ASSIGN_OR_RETURN(const Value left, operate(BinaryOperator::kModulo, self, divisor, run.budget));
  return Value::of(equal(left, Value::of(rest), run.budget));
}
Result is_odd(Run& run, const Value& self, const Bound&) { return leaves_rest(run, self, Value::of(int64_t{2}), 1); }
Result is_even(Run& run, const Value& self, const Bound&) { return leaves_rest(run, self, Value::of(int64_t{2}), 0); }
Result is_divisible(Run& run, const Value& self, const Bound& arguments) {
  return leaves_rest(run, self, *arguments[0], 0);
}

Result equals(Run& run, const Value& self, const Bound& arguments) {
  return Value::of(equal(self, *arguments[0], run.budget));
}
Result differs(Run& run, const Value& self, const Bound& arguments) {
  return Value::of(!equal(self, *arguments[0], run.budget));
}
Result is_less(Run& run, const Value& self, const Bound& arguments) {
  PKV_ASSIGN_OR_RETURN(const bool holds, less(self, *arguments[0], run.budget));
  return Value::of(holds);
}
Result is_greater(Run& run, const Value& self, const Bound& arguments) {
  PKV_ASSIGN_OR_RETURN(const bool holds, less(*arguments[0], self, run.budget));
  return Value::of(holds);
}
Result at_most(Run& run, const Value& self, const Bound& arguments) {
  PKV_ASSIGN_OR_RETURN(const bool holds, less_equal(self, *arguments[0], run.budget));
  return Value::of(holds);
}
Result at_least(Run& run, const Value& self, const Bound& arguments) {
  PKV_ASSIGN_OR_RETURN(const bool holds, less_equal(*arguments[0], self, run.budget));
  return Value::of(holds);
}
Result is_in(Run& run, const Value& self, const Bound& arguments) {
  PKV_ASSIGN_OR_RETURN(const bool holds, contains(*arguments[0], self, run.budget));
  return Value::of(holds);
}

// The same object: of what has no identity here, what is equal and of one type.
Result is_same(Run& run, const Value& self, const Bound& arguments) {
  const Value& other = *arguments[0];
  return Value::of(self.type() == other.type() && equal(self, other, run.budget));
}

constexpr Function kTests[] = {
    {"defined", test<is_defined>},
    {"undefined", test<is_undefined>},
    {"none", test<is_none>},
    {"boolean", test<is_boolean>},
    {"true", test<is_true>},
    {"false", test<is_false>},
    {"integer", test<is_integer>},
    {"float", test<is_float>},
    {"number", test<is_number>},
    {"string", test<is_string>},
    {"mapping", test<is_mapping>},
    {"iterable", test<can_iterate>},
    {"sequence", test<is_sequence>},
    {"callable", test<is_callable>},
    {"upper", test_text<is_upper>},
    {"lower", test_text<is_lower>},
    {"odd", is_odd},
    {"even", is_even},
    {"divisibleby", is_divisible, {"num"}, 1},
    {"sameas", is_same, {"other"}, 1},
    {"in", is_in, {"seq"}, 1},
    {"eq", equals, {"b"}, 1},
    {"==", equals, {"b"}, 1},
    {"equalto", equals, {"b"}, 1},
    {"ne", differs, {"b"}, 1},
    {"!=", differs, {"b"}, 1},
    {"lt", is_less, {"b"}, 1},
    {"<", is_less, {"b"}, 1},
    {"lessthan", is_less, {"b"}, 1},
    {"gt", is_greater, {"b"}, 1},
    {">", is_greater, {"b"}, 1},
    {"greaterthan", is_greater, {"b"}, 1},
    {"le", at_most, {"b"}, 1},
    {"<=", at_most, {"b"}, 1},
    {"ge", at_least, {"b"}, 1},
    {">=", at_least, {"b"}, 1},
};

}  // namespace

const Function* find_test(std::string_view name) { return find_function(kTests, name); }

}  // namespace pkv::jinja
