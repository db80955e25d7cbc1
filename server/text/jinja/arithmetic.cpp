// + - * / // % ** of numbers, strings and lists.
#include <cmath>

#include "kernels/status_macros.h"
#include "server/text/jinja/html.h"
#include "server/text/jinja/operations.h"

namespace pkv::jinja {
namespace {

constexpr std::string_view kSigns[] = {"+", "-", "*", "/", "//", "%", "**"};

absl::Status unsupported(BinaryOperator op, const Value& left, const Value& right) {
  return template_error("unsupported operand type(s) for ", kSigns[static_cast<size_t>(op)], ": '", left.type(),
                        "' and '", right.type(), "'");
}

absl::Status overflow() { return template_error("an integer of more than 64 bits"); }
absl::Status division_by_zero() { return template_error("division by zero"); }

int64_t floor_divide(int64_t a, int64_t b) { return a / b - ((a % b != 0 && (a < 0) != (b < 0)) ? 1 : 0); }

double floor_modulo(double a, double b) {
  double rest = std::fmod(a, b);
  if (rest == 0) return std::copysign(0.0, b);
  if ((rest < 0) != (b < 0)) rest += b;
  return rest;
}

absl::StatusOr<Value> power(int64_t base, int64_t exponent) {
  if (exponent < 0) {
    if (base == 0) return division_by_zero();
    return Value::of(std::pow(static_cast<double>(base), static_cast<double>(exponent)));
  }
  if (exponent > 64 && base != 0 && base != 1 && base != -1) return overflow();
  if (exponent > 64) exponent = 2 + exponent % 2;  // of 0, 1 and -1
  int64_t result = 1;
  for (int64_t i = 0; i < exponent; ++i) {
    if (__builtin_mul_overflow(result, base, &result)) return overflow();
  }
  return Value::of(result);
}

absl::StatusOr<Value> operate_integers(BinaryOperator op, int64_t a, int64_t b) {
  int64_t result = 0;
  bool over = false;
  switch (op) {
    case BinaryOperator::kAdd:
      over = __builtin_add_overflow(a, b, &result);
      break;
    case BinaryOperator::kSubtract:
      over = __builtin_sub_overflow(a, b, &result);
      break;
    case BinaryOperator::kMultiply:
      over = __builtin_mul_overflow(a, b, &result);
      break;
    case BinaryOperator::kDivide:
      if (b == 0) return division_by_zero();
      return Value::of(static_cast<double>(a) / static_cast<double>(b));
    case BinaryOperator::kFloorDivide:
    case BinaryOperator::kModulo:
      if (b == 0) return division_by_zero();
      if (b == -1) {  // the only one that can overflow
        over = op == BinaryOperator::kFloorDivide && __builtin_sub_overflow(int64_t{0}, a, &result);
        break;
      }
      result = floor_divide(a, b);
      if (op == BinaryOperator::kModulo) result = a - result * b;
      break;
    case BinaryOperator::kPower:
      return power(a, b);
  }
  if (over) return overflow();
  return Value::of(result);
}

absl::StatusOr<Value> operate_reals(BinaryOperator op, double a, double b) {
  switch (op) {
    case BinaryOperator::kAdd:
      return Value::of(a + b);
    case BinaryOperator::kSubtract:
      return Value::of(a - b);
    case BinaryOperator::kMultiply:
      return Value::of(a * b);
    case BinaryOperator::kDivide:
      if (b == 0) return division_by_zero();
      return Value::of(a / b);
    case BinaryOperator::kFloorDivide:
      if (b == 0) return division_by_zero();
      return Value::of(std::floor((a - floor_modulo(a, b)) / b + 0.5));
    case BinaryOperator::kModulo:
      if (b == 0) return division_by_zero();
      return Value::of(floor_modulo(a, b));
    case BinaryOperator::kPower:
      if (a == 0 && b < 0) return division_by_zero();
      if (a < 0 && b != std::floor(b)) return template_error("a complex number");
      return Value::of(std::pow(a, b));
  }
  return template_error("unknown operator");
}

Value join_texts(const String& left, const String& right, Budget& budget) {
  TextBuilder out(budget);
  const bool markup = left.markup || right.markup;
  for (const String* part : {&left, &right}) {
    if (markup && !part->markup) {
      append_escaped(part->text, out);
    } else {
      out.append(part->text);
    }
  }
  return make_string(out.take(), budget, markup);
}

Value join_lists(const Sequence& left, const Sequence& right, Budget& budget) {
  budget.spend_values(left.items.size() + right.items.size());
  std::vector<Value> items = left.items;
  items.insert(items.end(), right.items.begin(), right.items.end());
  return make_list(std::move(items), budget, left.form);
}

Value repeat_text(const String& string, int64_t times, Budget& budget) {
  TextBuilder out(budget);
  if (string.text.empty()) times = 0;
  for (int64_t i = 0; i < times && !budget.exhausted(); ++i) {
    budget.spend(1);
    out.append(string.text);
  }
  return make_string(out.take(), budget, string.markup);
}

Value repeat_list(const Sequence& list, int64_t times, Budget& budget) {
  std::vector<Value> items;
  Charge charge(&budget);
  if (list.items.empty()) times = 0;
  for (int64_t i = 0; i < times && !budget.exhausted(); ++i) {
    budget.spend(1);
    budget.spend_values(list.items.size());
    if (!charge.take(list.items.size() * sizeof(Value))) break;
    items.insert(items.end(), list.items.begin(), list.items.end());
  }
  return make_list(std::move(items), budget, list.form);
}

bool is_list(const Sequence* sequence) { return sequence != nullptr && sequence->form <= Sequence::Form::kTuple; }

absl::StatusOr<Value> multiply(const Value& left, const Value& right, Budget& budget) {
  const Value& many = left.as_integer().has_value() ? right : left;
  const auto times = left.as_integer().has_value() ? left.as_integer() : right.as_integer();
  if (times.has_value()) {
    if (const String* string = many.string()) return repeat_text(*string, *times, budget);
    if (is_list(many.sequence())) return repeat_list(*many.sequence(), *times, budget);
  }
  return unsupported(BinaryOperator::kMultiply, left, right);
}

absl::StatusOr<Value> add(const Value& left, const Value& right, Budget& budget) {
  if (left.string() != nullptr && right.string() != nullptr) return join_texts(*left.string(), *right.string(), budget);
  const Sequence *a = left.sequence(), *b = right.sequence();
  if (is_list(a) && is_list(b) && a->form == b->form) return join_lists(*a, *b, budget);
  if (left.string() != nullptr) return template_error("can only concatenate str (not \"", right.type(), "\") to str");
  return unsupported(BinaryOperator::kAdd, left, right);
}

// What is right of a string's %: copies, each paid for before it is made.
Arguments format_arguments(const Value& right, Charge& charge, Budget& budget) {
  Arguments arguments;
  const Sequence* several = right.sequence();
  if (several != nullptr && several->form == Sequence::Form::kTuple) {
    budget.spend_values(several->items.size());
    if (charge.take(several->items.size() * sizeof(Value))) arguments.values = several->items;
  } else {
    arguments.values = {right};
  }
  const Dict* dict = right.dict();
  if (dict == nullptr) return arguments;
  budget.spend_values(2 * dict->items.size());
  for (const auto& [key, value] : dict->items) {
    if (key.string() == nullptr) continue;
    const std::string& name = key.string()->text.bytes();
    budget.spend_bytes(name.size());
    if (budget.exhausted() || !charge.take(2 * sizeof(arguments.named[0]) + name.size())) break;
    arguments.named.emplace_back(name, value);
  }
  return arguments;
}

}  // namespace

absl::StatusOr<Value> operate(BinaryOperator op, const Value& left, const Value& right, Budget& budget) {
  PKV_RETURN_IF_ERROR(undefined_error(left));
  if (op == BinaryOperator::kModulo && left.string() != nullptr) {
    Charge charge(&budget);
    const Arguments arguments = format_arguments(right, charge, budget);
    if (budget.exhausted()) return budget.status();
    return percent_format(left.string()->text, arguments, budget);
  }
  PKV_RETURN_IF_ERROR(undefined_error(right));
  if (const auto a = left.as_integer(), b = right.as_integer(); a.has_value() && b.has_value()) {
    return operate_integers(op, *a, *b);
  }
  if (const auto a = left.as_real(), b = right.as_real(); a.has_value() && b.has_value()) {
    return operate_reals(op, *a, *b);
  }
  if (op == BinaryOperator::kAdd) return add(left, right, budget);
  if (op == BinaryOperator::kMultiply) return multiply(left, right, budget);
  return unsupported(op, left, right);
}

absl::StatusOr<Value> negate(const Value& value) {
  PKV_RETURN_IF_ERROR(undefined_error(value));
  if (const auto integer = value.as_integer(); integer.has_value()) {
    return operate_integers(BinaryOperator::kSubtract, 0, *integer);
  }
  if (const double* real = value.real()) return Value::of(-*real);
  return template_error("bad operand type for unary -: '", value.type(), "'");
}

}  // namespace pkv::jinja
