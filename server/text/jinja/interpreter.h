// Runs a Program.
#pragma once

#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "server/text/jinja/program.h"

namespace pkv::jinja {

struct Scope {
  Scope* parent = nullptr;
  std::vector<std::pair<NameId, Value>> variables;
  bool captured = false;  // a macro was made here and may be called later
  Charge charge;
};

struct Macro {
  const Statement* statement = nullptr;
  Scope* scope = nullptr;
};

class Interpreter {
 public:
  Interpreter(const Program& program, Run& run, int max_depth) : program_(program), run_(run), max_depth_(max_depth) {}

  // The text that the program writes with these variables; names that it does not have are left out.
  // INVALID_ARGUMENT with the template's own words for raise_exception, else FAILED_PRECONDITION or RESOURCE_EXHAUSTED
  // with line and column.
  absl::StatusOr<Text> run(const std::vector<std::pair<std::string, Value>>& variables);

 private:
  enum class Flow : uint8_t { kOn, kBreak, kContinue };
  using Evaluated = absl::StatusOr<Value>;

  // Opens a scope inside of the current one for as long as it lives.
  class ScopeGuard {
   public:
    ScopeGuard(Interpreter& interpreter, Scope* parent);
    ~ScopeGuard();
    ScopeGuard(const ScopeGuard&) = delete;
    ScopeGuard& operator=(const ScopeGuard&) = delete;

   private:
    Interpreter& interpreter_;
    Scope* outer_;
    std::unique_ptr<Scope> scope_;
  };

  // interpreter.cpp
  Budget& budget() { return run_.budget; }
  absl::Status enter(Position at);
  absl::Status describe_failure(const absl::Status& status) const;
  Value look_up(NameId name);
  void set(NameId name, Value value);
  absl::Status assign(const Target& target, Value value);
  absl::StatusOr<Value> capture(const Body& body);

  // statements.cpp
  absl::StatusOr<Flow> execute_all(const Body& body);
  absl::StatusOr<Flow> execute(const Statement& statement);
  absl::StatusOr<Flow> execute_kind(const Statement& statement);
  absl::Status print(const Statement& statement);
  absl::StatusOr<Flow> execute_if(const Statement& statement);
  absl::StatusOr<Flow> execute_for(const Statement& statement);
  absl::StatusOr<std::shared_ptr<const Sequence>> loop_items(const Statement& statement);
  absl::Status execute_captured(const Statement& statement);
  absl::StatusOr<Flow> execute_with(const Statement& statement);
  absl::Status execute_call(const Statement& statement);
  Evaluated make_macro(const Statement& statement);

  // expressions.cpp
  Evaluated evaluate(const Expression& expression);
  Evaluated evaluate_kind(const Expression& expression);
  Evaluated evaluate_list(const Expression& expression);
  Evaluated evaluate_dict(const Expression& expression);
  Evaluated evaluate_choice(const Expression& expression);
  Evaluated evaluate_comparison(const Expression& expression);
  Evaluated evaluate_sign(const Expression& expression);
  Evaluated evaluate_binary(const Expression& expression);
  Evaluated evaluate_concatenation(const Expression& expression);
  Evaluated evaluate_access(const Expression& expression);
  Evaluated evaluate_slice(const Expression& expression);

  // calls.cpp
  // `charge` holds what comes from lists and dicts, and lives as long as the arguments.
  absl::StatusOr<Arguments> evaluate_arguments(const Expression& expression, Charge& charge);
  absl::Status add_items(const Value& list, Arguments& arguments, Charge& charge);
  absl::Status add_named_items(const Value& dict, Arguments& arguments, Charge& charge);
  Evaluated evaluate_applied(const Expression& expression);  // a filter or test
  Evaluated evaluate_call(const Expression& expression, const Value* caller = nullptr);
  Evaluated call_macro(const Macro& macro, const Arguments& arguments);

  const Program& program_;
  Run& run_;
  const int max_depth_;
  int depth_ = 0;
  std::optional<Position> failed_at_;  // where the first error was
  Scope* scope_ = nullptr;
  TextBuilder* out_ = nullptr;
  std::vector<std::shared_ptr<const Loop>> loops_;  // being run, innermost last; after an error, when it happened
  std::vector<Value> captured_;                     // what kCaptured stands for, innermost last
  std::vector<Value> globals_;                      // per name: the function of that name, where it has been used
  std::vector<std::unique_ptr<Scope>> kept_scopes_;
  std::vector<std::unique_ptr<const Macro>> macros_;
};

}  // namespace pkv::jinja
