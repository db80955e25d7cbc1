// What the interpreter does for each kind of statement.
#include "kernels/status_macros.h"
#include "server/text/jinja/callable.h"
#include "server/text/jinja/interpreter.h"
#include "server/text/jinja/value_text.h"

namespace pkv::jinja {

absl::StatusOr<Interpreter::Flow> Interpreter::execute_all(const Body& body) {
  for (const auto& statement : body) {
    PKV_ASSIGN_OR_RETURN(const Flow flow, execute(*statement));
    if (flow != Flow::kOn) return flow;
  }
  return Flow::kOn;
}

absl::StatusOr<Interpreter::Flow> Interpreter::execute(const Statement& statement) {
  PKV_RETURN_IF_ERROR(enter(statement.at));
  ++depth_;
  absl::StatusOr<Flow> flow = execute_kind(statement);
  --depth_;
  if (!flow.ok() && !failed_at_.has_value()) failed_at_ = statement.at;
  return flow;
}

absl::StatusOr<Interpreter::Flow> Interpreter::execute_kind(const Statement& statement) {
  switch (statement.kind) {
    case Statement::Kind::kText:
      out_->append(statement.text);
      return Flow::kOn;
    case Statement::Kind::kPrint:
      PKV_RETURN_IF_ERROR(print(statement));
      return Flow::kOn;
    case Statement::Kind::kIf:
      return execute_if(statement);
    case Statement::Kind::kFor:
      return execute_for(statement);
    case Statement::Kind::kSet: {
      PKV_ASSIGN_OR_RETURN(Value value, evaluate(*statement.expressions[0]));
      PKV_RETURN_IF_ERROR(assign(statement.target, std::move(value)));
      return Flow::kOn;
    }
    case Statement::Kind::kSetBlock:
    case Statement::Kind::kFilter:
      PKV_RETURN_IF_ERROR(execute_captured(statement));
      return Flow::kOn;
    case Statement::Kind::kMacro: {
      PKV_ASSIGN_OR_RETURN(Value macro, make_macro(statement));
      set(statement.name, std::move(macro));
      return Flow::kOn;
    }
    case Statement::Kind::kCall:
      PKV_RETURN_IF_ERROR(execute_call(statement));
      return Flow::kOn;
    case Statement::Kind::kWith:
    case Statement::Kind::kPlain:
      return execute_with(statement);
    case Statement::Kind::kBreak:
      return Flow::kBreak;
    case Statement::Kind::kContinue:
      return Flow::kContinue;
  }
  return Flow::kOn;
}

absl::Status Interpreter::print(const Statement& statement) {
  PKV_ASSIGN_OR_RETURN(const Value value, evaluate(*statement.expressions[0]));
  return append_text(value, *out_);
}

absl::StatusOr<Interpreter::Flow> Interpreter::execute_if(const Statement& statement) {
  size_t branch = 0;
  for (; branch < statement.expressions.size(); ++branch) {
    PKV_ASSIGN_OR_RETURN(const Value condition, evaluate(*statement.expressions[branch]));
    if (condition.truthy()) break;
  }
  if (branch >= statement.bodies.size()) return Flow::kOn;
  return execute_all(statement.bodies[branch]);
}

// What a loop walks through, its filter applied.
absl::StatusOr<std::shared_ptr<const Sequence>> Interpreter::loop_items(const Statement& statement) {
  PKV_ASSIGN_OR_RETURN(const Value value, evaluate(*statement.expressions[0]));
  PKV_ASSIGN_OR_RETURN(auto items, iterate(value, budget()));
  if (statement.expressions.size() == 1) return items;
  std::vector<Value> kept;
  for (const Value& item : items->items) {
    const ScopeGuard guard(*this, scope_);
    PKV_RETURN_IF_ERROR(assign(statement.target, item));
    PKV_ASSIGN_OR_RETURN(const Value keep, evaluate(*statement.expressions[1]));
    if (keep.truthy()) kept.push_back(item);
  }
  const Value list = make_list(std::move(kept), budget());
  return std::get<std::shared_ptr<const Sequence>>(list.storage());
}

absl::StatusOr<Interpreter::Flow> Interpreter::execute_for(const Statement& statement) {
  PKV_ASSIGN_OR_RETURN(const auto items, loop_items(statement));
  if (items->items.empty()) {
    if (statement.bodies.size() < 2) return Flow::kOn;
    const ScopeGuard guard(*this, scope_);
    return execute_all(statement.bodies[1]);
  }
  const auto loop = std::make_shared<Loop>();
  loop->items = items;
  loop->charge = Charge(&budget());
  if (!loop->charge.take(kBlockBytes + sizeof(Loop)) || !budget().allows_depth(items->depth + 1)) {
    return budget().status();
  }
  loops_.push_back(loop);
  for (; loop->index < items->items.size(); ++loop->index) {
    budget().spend(1);
    const ScopeGuard guard(*this, scope_);
    set(program_.loop, Value(loop));
    PKV_RETURN_IF_ERROR(assign(statement.target, items->items[loop->index]));
    PKV_ASSIGN_OR_RETURN(const Flow flow, execute_all(statement.bodies[0]));
    if (flow == Flow::kBreak) break;
  }
  loops_.pop_back();
  return Flow::kOn;
}

absl::Status Interpreter::execute_captured(const Statement& statement) {
  PKV_ASSIGN_OR_RETURN(Value written, capture(statement.bodies[0]));
  captured_.push_back(std::move(written));
  absl::StatusOr<Value> value = evaluate(*statement.expressions[0]);
  captured_.pop_back();
  PKV_RETURN_IF_ERROR(value.status());
  if (statement.kind == Statement::Kind::kSetBlock) return assign(statement.target, *std::move(value));
  return append_text(*value, *out_);
}

absl::StatusOr<Interpreter::Flow> Interpreter::execute_with(const Statement& statement) {
  std::vector<Value> values;
  for (const ExpressionPtr& expression : statement.expressions) {
    PKV_ASSIGN_OR_RETURN(Value value, evaluate(*expression));
    values.push_back(std::move(value));
  }
  const ScopeGuard guard(*this, scope_);
  for (size_t i = 0; i < values.size(); ++i) set(statement.parameters[i], std::move(values[i]));
  return execute_all(statement.bodies[0]);
}

absl::Status Interpreter::execute_call(const Statement& statement) {
  PKV_ASSIGN_OR_RETURN(const Value caller, make_macro(*statement.bodies[0][0]));
  PKV_ASSIGN_OR_RETURN(const Value written, evaluate_call(*statement.expressions[0], &caller));
  if (written.string() == nullptr) return template_error("a call block writes a string, not ", written.type());
  return append_text(written, *out_);
}

absl::StatusOr<Value> Interpreter::make_macro(const Statement& statement) {
  if (!scope_->charge.take(128)) return budget().status();  // the macro and its value
  for (Scope* scope = scope_; scope != nullptr && !scope->captured; scope = scope->parent) scope->captured = true;
  macros_.push_back(std::make_unique<const Macro>(Macro{.statement = &statement, .scope = scope_}));
  return Value(std::make_shared<const Callable>(Callable{.macro = macros_.back().get()}));
}

}  // namespace pkv::jinja
