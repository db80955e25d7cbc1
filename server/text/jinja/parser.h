// Tokens to a Program.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "server/text/jinja/budget.h"
#include "server/text/jinja/lexer.h"
#include "server/text/jinja/program.h"

namespace pkv::jinja {

// INVALID_ARGUMENT with line and column: what is not Jinja; blocks, filters, tests and functions that we do not have;
// what goes over the limits.
absl::StatusOr<Program> parse(std::string_view source, const Limits& limits);

class Parser {
 public:
  Parser(std::vector<Token> tokens, const Limits& limits) : tokens_(std::move(tokens)), limits_(limits) {}

  absl::StatusOr<Program> run() &&;

 private:
  using Parsed = absl::StatusOr<ExpressionPtr>;
  using Words = std::initializer_list<std::string_view>;
  struct CallSite {
    NameId name;
    Position at;
  };
  // Ends a level of nesting that enter() has begun.
  class Level {
   public:
    explicit Level(int& depth) : depth_(depth) {}
    ~Level() { --depth_; }

   private:
    int& depth_;
  };

  // parser.cpp: tokens, names, limits
  const Token& peek(size_t ahead = 0) const;
  const Token& next();
  bool at_operator(std::string_view which) const { return peek().is_operator(which); }
  bool at_name(std::string_view which) const { return peek().is_name(which); }
  bool skip_operator(std::string_view which);
  bool skip_name(std::string_view which);
  absl::Status expect_operator(std::string_view which);
  absl::Status expect_name(std::string_view which);
  absl::Status expect(TokenKind kind, std::string_view what);
  absl::StatusOr<std::string> any_name(std::string_view what);
  absl::Status unexpected(std::string_view wanted = "") const;
  NameId intern(const std::string& name);
  absl::StatusOr<NameId> assignable_name(std::string_view what);
  absl::Status enter();  // one level deeper; ended by Level
  Parsed finish(Expression expression);
  absl::Status check_names() const;

  // statement_parser.cpp
  absl::Status parse_body(Body& body, Words ends);   // leaves the name that ends it
  absl::Status parse_block(Body& body, Words ends);  // the rest of a tag, then parse_body
  absl::Status parse_statement(Body& body);
  absl::Status parse_if(Statement& statement);
  absl::Status parse_for(Statement& statement);
  absl::Status parse_set(Statement& statement);
  absl::Status parse_macro(Statement& statement);
  absl::Status parse_call_block(Statement& statement);
  absl::Status parse_parameters(Statement& macro);
  absl::Status parse_macro_body(Statement& macro, std::string_view end);
  absl::Status parse_filter_block(Statement& statement);
  absl::Status parse_with(Statement& statement);
  absl::Status parse_loop_control(Statement& statement);
  absl::StatusOr<Target> parse_target(bool with_attributes);
  absl::StatusOr<Target> parse_one_target(bool with_attributes);

  // expression_parser.cpp, loosest binding first
  Parsed parse_tuple(bool conditional, bool in_parentheses);
  Parsed parse_expression(bool conditional = true);
  Parsed parse_or();
  Parsed parse_and();
  Parsed parse_not();
  Parsed parse_comparison();
  Parsed parse_sum();
  Parsed parse_concatenation();
  Parsed parse_product();
  Parsed parse_power();
  Parsed parse_unary(bool with_filters);

  // operand_parser.cpp
  Parsed parse_primary();
  Parsed parse_list();
  Parsed parse_dict();
  Parsed parse_postfix(ExpressionPtr expression);
  Parsed parse_filters(ExpressionPtr expression);
  Parsed parse_filter(ExpressionPtr expression);
  Parsed parse_test(ExpressionPtr expression);
  Parsed parse_subscript(ExpressionPtr expression);
  Parsed parse_call(ExpressionPtr callee);
  absl::Status parse_arguments(Expression& expression);
  absl::Status parse_argument(Expression& expression);
  absl::Status check_selection(const Expression& filter) const;

  std::vector<Token> tokens_;
  const Limits& limits_;
  size_t at_ = 0;
  int depth_ = 0;
  int loops_ = 0;             // that break and continue may leave
  bool asks_caller_ = false;  // the body that is being parsed has the name `caller`
  Program program_;
  absl::flat_hash_map<std::string, NameId> ids_;
  std::vector<bool> assigned_;   // per name
  std::vector<CallSite> calls_;  // of names
};

}  // namespace pkv::jinja
