// Filters, tests, functions, methods, macros.
#include "kernels/status_macros.h"
#include "server/text/jinja/callable.h"
#include "server/text/jinja/interpreter.h"

namespace pkv::jinja {

absl::StatusOr<Arguments> Interpreter::evaluate_arguments(const Expression& expression, Charge& charge) {
  Arguments arguments;
  const size_t unnamed = expression.parts.size() - expression.keywords.size();
  for (size_t i = 1; i < expression.parts.size(); ++i) {
    PKV_ASSIGN_OR_RETURN(Value value, evaluate(*expression.parts[i]));
    if (i < unnamed) {
      arguments.values.push_back(std::move(value));
      continue;
    }
    const std::string& keyword = expression.keywords[i - unnamed];
    if (keyword == "*") {
      PKV_RETURN_IF_ERROR(add_items(value, arguments, charge));
    } else if (keyword == "**") {
      PKV_RETURN_IF_ERROR(add_named_items(value, arguments, charge));
    } else {
      arguments.named.emplace_back(keyword, std::move(value));
    }
  }
  return arguments;
}

absl::Status Interpreter::add_items(const Value& list, Arguments& arguments, Charge& charge) {
  PKV_ASSIGN_OR_RETURN(const auto items, iterate(list, budget()));
  const size_t count = items->items.size();
  budget().spend_values(count);
  if (!charge.take(count * sizeof(Value))) return budget().status();
  arguments.values.insert(arguments.values.end(), items->items.begin(), items->items.end());
  return absl::OkStatus();
}

absl::Status Interpreter::add_named_items(const Value& dict, Arguments& arguments, Charge& charge) {
  PKV_RETURN_IF_ERROR(undefined_error(dict));
  if (dict.dict() == nullptr) return template_error("arguments are named by a dict, not by ", dict.type());
  for (const auto& [key, value] : dict.dict()->items) {
    const String* name = key.string();
    if (name == nullptr) return template_error("an argument is named by a string, not by ", key.type());
    budget().spend_values(arguments.named.size());
    if (arguments.find(name->text.bytes()) != nullptr) {
      return template_error("'", name->text.bytes(), "' is given twice");
    }
    if (!charge.take(2 * sizeof(arguments.named[0]) + name->text.size())) return budget().status();
    arguments.named.emplace_back(name->text.bytes(), value);
  }
  return budget().status();
}

absl::StatusOr<Value> Interpreter::evaluate_applied(const Expression& expression) {
  PKV_ASSIGN_OR_RETURN(const Value self, evaluate(*expression.parts[0]));
  Charge charge(&budget());
  PKV_ASSIGN_OR_RETURN(const Arguments arguments, evaluate_arguments(expression, charge));
  return expression.function->call(run_, self, arguments);
}

// `caller`: what stands in the {% call %} block that this is the call of.
absl::StatusOr<Value> Interpreter::evaluate_call(const Expression& expression, const Value* caller) {
  PKV_ASSIGN_OR_RETURN(const Value callee, evaluate(*expression.parts[0]));
  PKV_RETURN_IF_ERROR(undefined_error(callee));
  const Callable* callable = callee.callable();
  if (callable == nullptr) return template_error("'", callee.type(), "' object is not callable");
  Charge charge(&budget());
  PKV_ASSIGN_OR_RETURN(Arguments arguments, evaluate_arguments(expression, charge));
  if (caller != nullptr) {
    if (arguments.find("caller") != nullptr) return template_error("'caller' is given twice");
    arguments.named.emplace_back("caller", *caller);
  }
  if (callable->macro != nullptr) return call_macro(*callable->macro, arguments);
  return callable->function->call(run_, callable->self, arguments);
}

absl::StatusOr<Value> Interpreter::call_macro(const Macro& macro, const Arguments& arguments) {
  const Statement& statement = *macro.statement;
  const std::vector<NameId>& parameters = statement.parameters;
  const std::string& macro_name = program_.names[statement.name];
  if (arguments.values.size() > parameters.size()) {
    return template_error("macro '", macro_name, "' takes not more than ", parameters.size(), " argument(s)");
  }
  const ScopeGuard guard(*this, macro.scope);
  size_t named = 0;
  const size_t first_default = parameters.size() - statement.expressions.size();
  for (size_t i = 0; i < parameters.size(); ++i) {
    const std::string& name = program_.names[parameters[i]];
    budget().spend_values(arguments.named.size());
    const Value* given = arguments.find(name);
    if (given != nullptr) ++named;
    if (i < arguments.values.size()) {
      if (given != nullptr) return template_error("macro '", macro_name, "' is given '", name, "' twice");
      given = &arguments.values[i];
    }
    if (given != nullptr) {
      set(parameters[i], *given);
    } else if (i >= first_default) {
      PKV_ASSIGN_OR_RETURN(Value value, evaluate(*statement.expressions[i - first_default]));
      set(parameters[i], std::move(value));
    } else {
      set(parameters[i], Value(Undefined{.name = &name}));
    }
  }
  if (statement.asks_caller) {
    const Value* caller = arguments.find("caller");
    if (caller != nullptr) ++named;
    const std::string& name = program_.names[program_.caller];
    set(program_.caller, caller != nullptr ? *caller : Value(Undefined{.name = &name}));
  }
  if (named < arguments.named.size()) return template_error("macro '", macro_name, "' is given an unknown argument");
  return capture(statement.bodies[0]);
}

}  // namespace pkv::jinja
