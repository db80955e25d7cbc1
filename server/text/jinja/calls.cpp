// Filters, tests, functions, methods, macros.
#include "kernels/status_macros.h"
#include "server/text/jinja/callable.h"
#include "server/text/jinja/interpreter.h"

namespace pkv::jinja {

absl::StatusOr<Arguments> Interpreter::evaluate_arguments(const Expression& expression) {
  Arguments arguments;
  const size_t unnamed = expression.parts.size() - expression.keywords.size();
  for (size_t i = 1; i < expression.parts.size(); ++i) {
    PKV_ASSIGN_OR_RETURN(Value value, evaluate(*expression.parts[i]));
    if (i < unnamed) {
      arguments.values.push_back(std::move(value));
    } else {
      arguments.named.emplace_back(expression.keywords[i - unnamed], std::move(value));
    }
  }
  return arguments;
}

absl::StatusOr<Value> Interpreter::evaluate_applied(const Expression& expression) {
  PKV_ASSIGN_OR_RETURN(const Value self, evaluate(*expression.parts[0]));
  PKV_ASSIGN_OR_RETURN(const Arguments arguments, evaluate_arguments(expression));
  return expression.function->call(run_, self, arguments);
}

absl::StatusOr<Value> Interpreter::evaluate_call(const Expression& expression) {
  PKV_ASSIGN_OR_RETURN(const Value callee, evaluate(*expression.parts[0]));
  PKV_RETURN_IF_ERROR(undefined_error(callee));
  const Callable* callable = callee.callable();
  if (callable == nullptr) return template_error("'", callee.type(), "' object is not callable");
  PKV_ASSIGN_OR_RETURN(const Arguments arguments, evaluate_arguments(expression));
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
  if (named < arguments.named.size()) return template_error("macro '", macro_name, "' is given an unknown argument");
  return capture(statement.bodies[0]);
}

}  // namespace pkv::jinja
