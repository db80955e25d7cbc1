// What the interpreter does for each kind of expression, but for calls.
#include "kernels/status_macros.h"
#include "server/text/jinja/interpreter.h"
#include "server/text/jinja/value_text.h"

namespace pkv::jinja {

using Kind = Expression::Kind;

absl::StatusOr<Value> Interpreter::evaluate(const Expression& expression) {
  PKV_RETURN_IF_ERROR(enter(expression.at));
  ++depth_;
  Evaluated value = evaluate_kind(expression);
  --depth_;
  if (!value.ok() && !failed_at_.has_value()) failed_at_ = expression.at;
  return value;
}

absl::StatusOr<Value> Interpreter::evaluate_kind(const Expression& expression) {
  switch (expression.kind) {
    case Kind::kConstant:
      return expression.constant;
    case Kind::kName:
      return look_up(expression.name);
    case Kind::kList:
    case Kind::kTuple:
      return evaluate_list(expression);
    case Kind::kDict:
      return evaluate_dict(expression);
    case Kind::kConditional:
    case Kind::kOr:
    case Kind::kAnd:
      return evaluate_choice(expression);
    case Kind::kNot:
    case Kind::kNegate:
    case Kind::kPlus:
      return evaluate_sign(expression);
    case Kind::kCompare:
      return evaluate_comparison(expression);
    case Kind::kBinary:
      return evaluate_binary(expression);
    case Kind::kConcatenate:
      return evaluate_concatenation(expression);
    case Kind::kAttribute:
    case Kind::kItem:
      return evaluate_access(expression);
    case Kind::kSlice:
      return evaluate_slice(expression);
    case Kind::kCall:
      return evaluate_call(expression);
    case Kind::kFilter:
    case Kind::kTest:
      return evaluate_applied(expression);
    case Kind::kCaptured:
      return captured_.back();
  }
  return Value();
}

absl::StatusOr<Value> Interpreter::evaluate_list(const Expression& expression) {
  std::vector<Value> items;
  for (const ExpressionPtr& part : expression.parts) {
    PKV_ASSIGN_OR_RETURN(Value item, evaluate(*part));
    items.push_back(std::move(item));
  }
  const bool tuple = expression.kind == Kind::kTuple;
  return make_list(std::move(items), budget(), tuple ? Sequence::Form::kTuple : Sequence::Form::kList);
}

absl::StatusOr<Value> Interpreter::evaluate_dict(const Expression& expression) {
  std::vector<std::pair<Value, Value>> items;
  for (size_t i = 0; i < expression.parts.size(); i += 2) {
    PKV_ASSIGN_OR_RETURN(Value key, evaluate(*expression.parts[i]));
    PKV_RETURN_IF_ERROR(check_hashable(key));
    PKV_ASSIGN_OR_RETURN(Value value, evaluate(*expression.parts[i + 1]));
    insert(items, std::move(key), std::move(value), budget());
  }
  return make_dict(std::move(items), budget());
}

absl::StatusOr<Value> Interpreter::evaluate_choice(const Expression& expression) {
  PKV_ASSIGN_OR_RETURN(Value first, evaluate(*expression.parts[0]));
  const bool truthy = first.truthy();
  if (expression.kind == Kind::kOr) return truthy ? Evaluated(std::move(first)) : evaluate(*expression.parts[1]);
  if (expression.kind == Kind::kAnd) return truthy ? evaluate(*expression.parts[1]) : Evaluated(std::move(first));
  if (truthy) return evaluate(*expression.parts[1]);
  return expression.parts.size() > 2 ? evaluate(*expression.parts[2]) : Evaluated(Value());
}

absl::StatusOr<Value> Interpreter::evaluate_sign(const Expression& expression) {
  PKV_ASSIGN_OR_RETURN(const Value value, evaluate(*expression.parts[0]));
  if (expression.kind == Kind::kNot) return Value::of(!value.truthy());
  if (expression.kind == Kind::kNegate) return negate(value);
  PKV_RETURN_IF_ERROR(undefined_error(value));
  if (const auto integer = value.as_integer(); integer.has_value()) return Value::of(*integer);
  if (value.real() != nullptr) return value;
  return template_error("bad operand type for unary +: '", value.type(), "'");
}

absl::StatusOr<Value> Interpreter::evaluate_comparison(const Expression& expression) {
  const auto compare = [&](Comparison comparison, const Value& left, const Value& right) -> absl::StatusOr<bool> {
    switch (comparison) {
      case Comparison::kEqual:
        return equal(left, right, budget());
      case Comparison::kNotEqual:
        return !equal(left, right, budget());
      case Comparison::kLess:
        return less(left, right, budget());
      case Comparison::kGreater:
        return less(right, left, budget());
      case Comparison::kLessEqual:
        return less_equal(left, right, budget());
      case Comparison::kGreaterEqual:
        return less_equal(right, left, budget());
      case Comparison::kIn:
        return contains(right, left, budget());
      case Comparison::kNotIn: {
        PKV_ASSIGN_OR_RETURN(const bool within, contains(right, left, budget()));
        return !within;
      }
    }
    return false;
  };
  PKV_ASSIGN_OR_RETURN(Value left, evaluate(*expression.parts[0]));
  for (size_t i = 0; i < expression.comparisons.size(); ++i) {
    PKV_ASSIGN_OR_RETURN(Value right, evaluate(*expression.parts[i + 1]));
    PKV_ASSIGN_OR_RETURN(const bool holds, compare(expression.comparisons[i], left, right));
    if (!holds) return Value::of(false);
    left = std::move(right);
  }
  return Value::of(true);
}

absl::StatusOr<Value> Interpreter::evaluate_binary(const Expression& expression) {
  PKV_ASSIGN_OR_RETURN(const Value left, evaluate(*expression.parts[0]));
  PKV_ASSIGN_OR_RETURN(const Value right, evaluate(*expression.parts[1]));
  return operate(expression.op, left, right, budget());
}

absl::StatusOr<Value> Interpreter::evaluate_concatenation(const Expression& expression) {
  TextBuilder text(budget());
  for (const ExpressionPtr& part : expression.parts) {
    PKV_ASSIGN_OR_RETURN(const Value value, evaluate(*part));
    PKV_RETURN_IF_ERROR(append_text(value, text));
  }
  return make_string(text.take(), budget());
}

absl::StatusOr<Value> Interpreter::evaluate_access(const Expression& expression) {
  PKV_ASSIGN_OR_RETURN(const Value object, evaluate(*expression.parts[0]));
  const std::string* name = &expression.text;
  Value found;
  if (expression.kind == Kind::kAttribute) {
    PKV_ASSIGN_OR_RETURN(found, get_attribute(object, expression.text, budget()));
  } else {
    PKV_ASSIGN_OR_RETURN(const Value key, evaluate(*expression.parts[1]));
    PKV_ASSIGN_OR_RETURN(found, get_item(object, key, budget()));
    const String* constant = expression.parts[1]->constant.string();
    name = constant == nullptr ? nullptr : &constant->text.bytes();
  }
  const Undefined* undefined = found.undefined();
  if (undefined == nullptr || undefined->name != nullptr) return found;
  return Value(Undefined{.name = name, .owner = undefined->owner});
}

absl::StatusOr<Value> Interpreter::evaluate_slice(const Expression& expression) {
  PKV_ASSIGN_OR_RETURN(const Value object, evaluate(*expression.parts[0]));
  Value bounds[3] = {Value::none(), Value::none(), Value::none()};
  for (size_t i = 0; i < 3; ++i) {
    if (expression.parts[i + 1] == nullptr) continue;
    PKV_ASSIGN_OR_RETURN(bounds[i], evaluate(*expression.parts[i + 1]));
  }
  return get_slice(object, bounds[0], bounds[1], bounds[2], budget());
}

}  // namespace pkv::jinja
