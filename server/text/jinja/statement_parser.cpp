// Blocks: {% if %}, {% for %}, {% set %}, {% macro %}...
#include <algorithm>
#include <utility>

#include "kernels/status_macros.h"
#include "server/text/jinja/parser.h"
#include "server/text/jinja/words.h"

namespace pkv::jinja {

// Up to a block that begins with one of `ends`; without ends, up to the end of the template.
absl::Status Parser::parse_body(Body& body, Words ends) {
  while (true) {
    const Token& token = peek();
    auto statement = std::make_unique<Statement>();
    statement->at = token.at;
    switch (token.kind) {
      case TokenKind::kText:
        statement->text = Text(next().text);
        body.push_back(std::move(statement));
        break;
      case TokenKind::kPrintBegin: {
        next();
        statement->kind = Statement::Kind::kPrint;
        PKV_ASSIGN_OR_RETURN(ExpressionPtr printed, parse_tuple(/*conditional=*/true, /*in_parentheses=*/false));
        statement->expressions.push_back(std::move(printed));
        PKV_RETURN_IF_ERROR(expect(TokenKind::kPrintEnd, "'}}'"));
        body.push_back(std::move(statement));
        break;
      }
      case TokenKind::kBlockBegin: {
        next();
        const auto ends_here = [&](std::string_view word) { return at_name(word); };
        if (std::any_of(ends.begin(), ends.end(), ends_here)) return absl::OkStatus();
        PKV_RETURN_IF_ERROR(parse_statement(body));
        PKV_RETURN_IF_ERROR(expect(TokenKind::kBlockEnd, "'%}'"));
        break;
      }
      default:
        if (ends.size() == 0 && token.kind == TokenKind::kEnd) return absl::OkStatus();
        return unexpected(ends.size() == 0 ? "" : words("{% ", *(ends.end() - 1), " %}"));
    }
  }
}

absl::Status Parser::parse_block(Body& body, Words ends) {
  skip_operator(":");
  PKV_RETURN_IF_ERROR(expect(TokenKind::kBlockEnd, "'%}'"));
  return parse_body(body, ends);
}

absl::Status Parser::parse_statement(Body& body) {
  using Parse = absl::Status (Parser::*)(Statement&);
  struct Row {
    std::string_view word;
    Statement::Kind kind;
    Parse parse;
  };
  constexpr Row kRows[] = {
      {"if", Statement::Kind::kIf, &Parser::parse_if},
      {"for", Statement::Kind::kFor, &Parser::parse_for},
      {"set", Statement::Kind::kSet, &Parser::parse_set},
      {"macro", Statement::Kind::kMacro, &Parser::parse_macro},
      {"call", Statement::Kind::kCall, &Parser::parse_call_block},
      {"filter", Statement::Kind::kFilter, &Parser::parse_filter_block},
      {"with", Statement::Kind::kWith, &Parser::parse_with},
      {"break", Statement::Kind::kBreak, &Parser::parse_loop_control},
      {"continue", Statement::Kind::kContinue, &Parser::parse_loop_control},
  };
  PKV_RETURN_IF_ERROR(enter());
  const Level level(depth_);
  auto statement = std::make_unique<Statement>();
  statement->at = peek().at;
  if (peek().kind != TokenKind::kName) return unexpected("the name of a block");
  if (skip_name("generation")) {  // marks the assistant's answers for training; it writes nothing itself
    statement->kind = Statement::Kind::kPlain;
    PKV_RETURN_IF_ERROR(parse_block(statement->bodies.emplace_back(), {"endgeneration"}));
    next();
    body.push_back(std::move(statement));
    return absl::OkStatus();
  }
  for (const Row& row : kRows) {
    if (!at_name(row.word)) continue;
    next();
    statement->kind = row.kind;
    PKV_RETURN_IF_ERROR((this->*row.parse)(*statement));
    body.push_back(std::move(statement));
    return absl::OkStatus();
  }
  return syntax_error(peek().at, "unknown block ", describe(peek()));
}

absl::Status Parser::parse_if(Statement& statement) {
  while (true) {
    PKV_ASSIGN_OR_RETURN(ExpressionPtr condition, parse_tuple(/*conditional=*/false, /*in_parentheses=*/false));
    statement.expressions.push_back(std::move(condition));
    PKV_RETURN_IF_ERROR(parse_block(statement.bodies.emplace_back(), {"elif", "else", "endif"}));
    if (skip_name("elif")) continue;
    if (skip_name("else")) PKV_RETURN_IF_ERROR(parse_block(statement.bodies.emplace_back(), {"endif"}));
    return expect_name("endif");
  }
}

absl::Status Parser::parse_for(Statement& statement) {
  PKV_ASSIGN_OR_RETURN(statement.target, parse_target(/*with_attributes=*/false));
  PKV_RETURN_IF_ERROR(expect_name("in"));
  PKV_ASSIGN_OR_RETURN(ExpressionPtr items, parse_tuple(/*conditional=*/false, /*in_parentheses=*/false));
  statement.expressions.push_back(std::move(items));
  if (skip_name("if")) {
    PKV_ASSIGN_OR_RETURN(ExpressionPtr filter, parse_expression());
    statement.expressions.push_back(std::move(filter));
  }
  if (at_name("recursive")) return syntax_error(peek().at, "recursive loops are not supported");
  ++loops_;
  PKV_RETURN_IF_ERROR(parse_block(statement.bodies.emplace_back(), {"else", "endfor"}));
  --loops_;
  if (skip_name("else")) PKV_RETURN_IF_ERROR(parse_block(statement.bodies.emplace_back(), {"endfor"}));
  return expect_name("endfor");
}

absl::Status Parser::parse_loop_control(Statement& statement) {
  if (loops_ > 0) return absl::OkStatus();
  return syntax_error(statement.at, "break or continue outside of a loop");
}

absl::Status Parser::parse_set(Statement& statement) {
  PKV_ASSIGN_OR_RETURN(statement.target, parse_target(/*with_attributes=*/true));
  if (skip_operator("=")) {
    PKV_ASSIGN_OR_RETURN(ExpressionPtr value, parse_tuple(/*conditional=*/true, /*in_parentheses=*/false));
    statement.expressions.push_back(std::move(value));
    return absl::OkStatus();
  }
  statement.kind = Statement::Kind::kSetBlock;
  PKV_ASSIGN_OR_RETURN(ExpressionPtr value, finish({.kind = Expression::Kind::kCaptured, .at = statement.at}));
  while (skip_operator("|")) {
    PKV_ASSIGN_OR_RETURN(value, parse_filter(std::move(value)));
  }
  statement.expressions.push_back(std::move(value));
  const int loops = std::exchange(loops_, 0);
  PKV_RETURN_IF_ERROR(parse_block(statement.bodies.emplace_back(), {"endset"}));
  loops_ = loops;
  return expect_name("endset");
}

absl::Status Parser::parse_filter_block(Statement& statement) {
  PKV_ASSIGN_OR_RETURN(ExpressionPtr value, finish({.kind = Expression::Kind::kCaptured, .at = statement.at}));
  do {
    PKV_ASSIGN_OR_RETURN(value, parse_filter(std::move(value)));
  } while (skip_operator("|"));
  statement.expressions.push_back(std::move(value));
  const int loops = std::exchange(loops_, 0);
  PKV_RETURN_IF_ERROR(parse_block(statement.bodies.emplace_back(), {"endfilter"}));
  loops_ = loops;
  return expect_name("endfilter");
}

absl::Status Parser::parse_macro(Statement& statement) {
  PKV_ASSIGN_OR_RETURN(statement.name, assignable_name("the name of a macro"));
  assigned_[statement.name] = true;
  PKV_RETURN_IF_ERROR(parse_parameters(statement));
  return parse_macro_body(statement, "endmacro");
}

// {% call(a, b) f(c) %}: what stands in it is a macro of these parameters, which f is given as `caller`.
absl::Status Parser::parse_call_block(Statement& statement) {
  auto caller = std::make_unique<Statement>();
  caller->kind = Statement::Kind::kMacro;
  caller->at = statement.at;
  caller->name = program_.caller;
  if (at_operator("(")) PKV_RETURN_IF_ERROR(parse_parameters(*caller));
  const Position at = peek().at;
  PKV_ASSIGN_OR_RETURN(ExpressionPtr call, parse_expression());
  if (call->kind != Expression::Kind::kCall) return syntax_error(at, "expected a call");
  if (std::find(call->keywords.begin(), call->keywords.end(), "caller") != call->keywords.end()) {
    return syntax_error(at, "the block is the call's 'caller'");
  }
  statement.expressions.push_back(std::move(call));
  PKV_RETURN_IF_ERROR(parse_macro_body(*caller, "endcall"));
  statement.bodies.emplace_back().push_back(std::move(caller));
  return absl::OkStatus();
}

absl::Status Parser::parse_parameters(Statement& macro) {
  PKV_RETURN_IF_ERROR(expect_operator("("));
  while (!at_operator(")")) {
    if (!macro.parameters.empty()) PKV_RETURN_IF_ERROR(expect_operator(","));
    PKV_ASSIGN_OR_RETURN(const NameId parameter, assignable_name("a parameter"));
    macro.parameters.push_back(parameter);
    assigned_[parameter] = true;
    if (skip_operator("=")) {
      PKV_ASSIGN_OR_RETURN(ExpressionPtr value, parse_expression());
      macro.expressions.push_back(std::move(value));
    } else if (!macro.expressions.empty()) {
      return syntax_error(peek().at, "a parameter without a default behind one that has it");
    }
  }
  next();
  return absl::OkStatus();
}

// As in Jinja, a macro asks for its caller also where a block in it does.
absl::Status Parser::parse_macro_body(Statement& macro, std::string_view end) {
  const int loops = std::exchange(loops_, 0);
  const bool outer_asks = std::exchange(asks_caller_, false);
  PKV_RETURN_IF_ERROR(parse_block(macro.bodies.emplace_back(), {end}));
  loops_ = loops;
  macro.asks_caller = asks_caller_;
  asks_caller_ = asks_caller_ || outer_asks;
  return expect_name(end);
}

absl::Status Parser::parse_with(Statement& statement) {
  while (peek().kind != TokenKind::kBlockEnd) {
    if (!statement.parameters.empty()) PKV_RETURN_IF_ERROR(expect_operator(","));
    PKV_ASSIGN_OR_RETURN(const NameId name, assignable_name("a name"));
    statement.parameters.push_back(name);
    assigned_[name] = true;
    PKV_RETURN_IF_ERROR(expect_operator("="));
    PKV_ASSIGN_OR_RETURN(ExpressionPtr value, parse_expression());
    statement.expressions.push_back(std::move(value));
  }
  PKV_RETURN_IF_ERROR(parse_block(statement.bodies.emplace_back(), {"endwith"}));
  return expect_name("endwith");
}

absl::StatusOr<Target> Parser::parse_target(bool with_attributes) {
  Target tuple{.at = peek().at};
  bool is_tuple = false;
  while (true) {
    const bool ended = peek().kind != TokenKind::kName && !at_operator("(");
    if (ended || at_name("in")) break;
    PKV_ASSIGN_OR_RETURN(Target one, parse_one_target(with_attributes));
    tuple.parts.push_back(std::move(one));
    if (!skip_operator(",")) break;
    is_tuple = true;
  }
  if (tuple.parts.empty()) return unexpected("a name");
  if (is_tuple) return tuple;
  Target one = std::move(tuple.parts[0]);
  return one;
}

absl::StatusOr<Target> Parser::parse_one_target(bool with_attributes) {
  PKV_RETURN_IF_ERROR(enter());
  const Level level(depth_);
  if (skip_operator("(")) {
    PKV_ASSIGN_OR_RETURN(Target inner, parse_target(with_attributes));
    PKV_RETURN_IF_ERROR(expect_operator(")"));
    return inner;
  }
  Target target{.at = peek().at};
  PKV_ASSIGN_OR_RETURN(target.name, assignable_name("a name"));
  if (with_attributes && skip_operator(".")) {
    PKV_ASSIGN_OR_RETURN(target.attribute, any_name("the name of an attribute"));
  } else {
    assigned_[target.name] = true;
  }
  return target;
}

}  // namespace pkv::jinja
