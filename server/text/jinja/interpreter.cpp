#include "server/text/jinja/interpreter.h"

#include <algorithm>

#include "kernels/status_macros.h"
#include "server/text/jinja/callable.h"
#include "server/text/jinja/template.h"
#include "server/text/jinja/words.h"

namespace pkv::jinja {

Interpreter::ScopeGuard::ScopeGuard(Interpreter& interpreter, Scope* parent)
    : interpreter_(interpreter), outer_(interpreter.scope_), scope_(std::make_unique<Scope>()) {
  scope_->parent = parent;
  scope_->charge = Charge(&interpreter.budget());
  scope_->charge.take(sizeof(Scope));
  interpreter.scope_ = scope_.get();
}

Interpreter::ScopeGuard::~ScopeGuard() {
  interpreter_.scope_ = outer_;
  if (scope_->captured) interpreter_.kept_scopes_.push_back(std::move(scope_));
}

absl::StatusOr<Text> Interpreter::run(const std::vector<std::pair<std::string, Value>>& variables) {
  const ScopeGuard guard(*this, nullptr);
  globals_.resize(program_.names.size());
  TextBuilder out(budget());
  out_ = &out;
  for (const auto& [name, value] : variables) {
    const auto known = std::find(program_.names.begin(), program_.names.end(), name);
    if (known != program_.names.end()) set(static_cast<NameId>(known - program_.names.begin()), value);
  }
  absl::Status status = execute_all(program_.body).status();
  if (status.ok()) status = budget().status();
  if (!status.ok()) return describe_failure(status);
  return out.take();
}

// What went wrong and where; of what the template itself refuses, its words and the item it looked at.
absl::Status Interpreter::describe_failure(const absl::Status& status) const {
  if (!absl::IsInvalidArgument(status)) {
    const Position at = failed_at_.value_or(Position());
    return {status.code(), words("line ", at.line, ", column ", at.column, ": ", std::string(status.message()))};
  }
  for (auto loop = loops_.rbegin(); loop != loops_.rend(); ++loop) {
    const Dict* item = (*loop)->items->items[(*loop)->index].dict();
    if (item != nullptr && item->source != kTemplate) return with_refused_item(status, item->source);
  }
  return status;
}

absl::Status Interpreter::enter(Position at) {
  budget().spend(1);
  absl::Status status = budget().status();
  if (depth_ >= max_depth_) status = absl::ResourceExhaustedError("the template calls itself too deeply");
  if (!status.ok() && !failed_at_.has_value()) failed_at_ = at;
  return status;
}

Value Interpreter::look_up(NameId name) {
  for (const Scope* scope = scope_; scope != nullptr; scope = scope->parent) {
    budget().spend_values(scope->variables.size());
    for (const auto& [id, value] : scope->variables) {
      if (id == name) return value;
    }
  }
  const std::string& text = program_.names[name];
  if (globals_[name].is_undefined()) {
    const Function* global = find_global(text);
    if (global == nullptr || (text == "strftime_now" && !run_.now.has_value())) return Value(Undefined{.name = &text});
    globals_[name] = Value(std::make_shared<const Callable>(Callable{.function = global}));
  }
  return globals_[name];
}

void Interpreter::set(NameId name, Value value) {
  budget().spend_values(scope_->variables.size());
  for (auto& [id, old] : scope_->variables) {
    if (id != name) continue;
    old = std::move(value);
    return;
  }
  if (!scope_->charge.take(2 * sizeof(scope_->variables[0]))) return;
  scope_->variables.emplace_back(name, std::move(value));
}

absl::Status Interpreter::assign(const Target& target, Value value) {
  if (!target.parts.empty()) {
    PKV_ASSIGN_OR_RETURN(const auto items, iterate(value, budget()));
    if (items->items.size() != target.parts.size()) {
      return template_error(items->items.size(), " values for ", target.parts.size(), " names");
    }
    for (size_t i = 0; i < target.parts.size(); ++i) PKV_RETURN_IF_ERROR(assign(target.parts[i], items->items[i]));
    return absl::OkStatus();
  }
  if (target.attribute.empty()) {
    set(target.name, std::move(value));
    return absl::OkStatus();
  }
  Namespace* space = look_up(target.name).name_space();
  if (space == nullptr) {
    return template_error("cannot assign attribute on non-namespace object '", program_.names[target.name], "'");
  }
  budget().spend_values(space->attributes.size());
  if (Value* old = space->find(target.attribute)) {
    *old = std::move(value);
  } else if (space->charge.take(2 * sizeof(space->attributes[0]) + target.attribute.size())) {
    space->attributes.emplace_back(target.attribute, std::move(value));
  }
  return absl::OkStatus();
}

// What `body` writes, in a scope of its own.
absl::StatusOr<Value> Interpreter::capture(const Body& body) {
  const ScopeGuard guard(*this, scope_);
  TextBuilder inner(budget());
  TextBuilder* const outer = std::exchange(out_, &inner);
  const absl::Status status = execute_all(body).status();
  out_ = outer;
  PKV_RETURN_IF_ERROR(status);
  return make_string(inner.take(), budget());
}

}  // namespace pkv::jinja
