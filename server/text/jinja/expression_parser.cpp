// Operators, in the order of how loosely they bind.
#include <utility>

#include "kernels/status_macros.h"
#include "server/text/jinja/parser.h"

namespace pkv::jinja {
namespace {

struct BinaryRow {
  std::string_view sign;
  BinaryOperator op;
};
constexpr BinaryRow kSums[] = {{"+", BinaryOperator::kAdd}, {"-", BinaryOperator::kSubtract}};
constexpr BinaryRow kProducts[] = {{"*", BinaryOperator::kMultiply},
                                   {"/", BinaryOperator::kDivide},
                                   {"//", BinaryOperator::kFloorDivide},
                                   {"%", BinaryOperator::kModulo}};
constexpr BinaryRow kPowers[] = {{"**", BinaryOperator::kPower}};

struct ComparisonRow {
  std::string_view sign;
  Comparison comparison;
};
constexpr ComparisonRow kComparisons[] = {{"==", Comparison::kEqual},  {"!=", Comparison::kNotEqual},
                                          {"<", Comparison::kLess},    {"<=", Comparison::kLessEqual},
                                          {">", Comparison::kGreater}, {">=", Comparison::kGreaterEqual}};

template <size_t N>
const BinaryRow* find_row(const BinaryRow (&rows)[N], const Token& token) {
  for (const BinaryRow& row : rows) {
    if (token.is_operator(row.sign)) return &row;
  }
  return nullptr;
}

Expression two_parts(Expression::Kind kind, Position at, ExpressionPtr left, ExpressionPtr right) {
  Expression expression{.kind = kind, .at = at};
  expression.parts.push_back(std::move(left));
  expression.parts.push_back(std::move(right));
  return expression;
}

}  // namespace

// One expression, or a tuple of those that commas part.
Parser::Parsed Parser::parse_tuple(bool conditional, bool in_parentheses) {
  Expression tuple{.kind = Expression::Kind::kTuple, .at = peek().at};
  bool is_tuple = false;
  while (true) {
    const TokenKind kind = peek().kind;
    if (kind == TokenKind::kPrintEnd || kind == TokenKind::kBlockEnd || at_operator(")")) break;
    PKV_ASSIGN_OR_RETURN(ExpressionPtr part, parse_expression(conditional));
    tuple.parts.push_back(std::move(part));
    if (!skip_operator(",")) break;
    is_tuple = true;
  }
  if (is_tuple || (tuple.parts.empty() && in_parentheses)) return finish(std::move(tuple));
  if (tuple.parts.empty()) return unexpected("an expression");
  return std::move(tuple.parts[0]);
}

Parser::Parsed Parser::parse_expression(bool conditional) {
  PKV_RETURN_IF_ERROR(enter());
  const Level level(depth_);
  PKV_ASSIGN_OR_RETURN(ExpressionPtr expression, parse_or());
  while (conditional && at_name("if")) {
    Expression choice{.kind = Expression::Kind::kConditional, .at = next().at};
    PKV_ASSIGN_OR_RETURN(ExpressionPtr condition, parse_or());
    choice.parts.push_back(std::move(condition));
    choice.parts.push_back(std::move(expression));
    if (skip_name("else")) {
      PKV_ASSIGN_OR_RETURN(ExpressionPtr otherwise, parse_expression());
      choice.parts.push_back(std::move(otherwise));
    }
    PKV_ASSIGN_OR_RETURN(expression, finish(std::move(choice)));
  }
  return expression;
}

Parser::Parsed Parser::parse_or() {
  PKV_ASSIGN_OR_RETURN(ExpressionPtr left, parse_and());
  while (at_name("or")) {
    const Position at = next().at;
    PKV_ASSIGN_OR_RETURN(ExpressionPtr right, parse_and());
    PKV_ASSIGN_OR_RETURN(left, finish(two_parts(Expression::Kind::kOr, at, std::move(left), std::move(right))));
  }
  return left;
}

Parser::Parsed Parser::parse_and() {
  PKV_ASSIGN_OR_RETURN(ExpressionPtr left, parse_not());
  while (at_name("and")) {
    const Position at = next().at;
    PKV_ASSIGN_OR_RETURN(ExpressionPtr right, parse_not());
    PKV_ASSIGN_OR_RETURN(left, finish(two_parts(Expression::Kind::kAnd, at, std::move(left), std::move(right))));
  }
  return left;
}

Parser::Parsed Parser::parse_not() {
  if (!at_name("not")) return parse_comparison();
  PKV_RETURN_IF_ERROR(enter());
  const Level level(depth_);
  Expression negation{.kind = Expression::Kind::kNot, .at = next().at};
  PKV_ASSIGN_OR_RETURN(ExpressionPtr operand, parse_not());
  negation.parts.push_back(std::move(operand));
  return finish(std::move(negation));
}

Parser::Parsed Parser::parse_comparison() {
  const Position at = peek().at;
  PKV_ASSIGN_OR_RETURN(ExpressionPtr first, parse_sum());
  Expression expression{.kind = Expression::Kind::kCompare, .at = at};
  while (true) {
    const size_t before = expression.comparisons.size();
    for (const ComparisonRow& row : kComparisons) {
      if (at_operator(row.sign)) expression.comparisons.push_back(row.comparison);
    }
    if (at_name("in")) expression.comparisons.push_back(Comparison::kIn);
    if (at_name("not") && peek(1).is_name("in")) {
      next();
      expression.comparisons.push_back(Comparison::kNotIn);
    }
    if (expression.comparisons.size() == before) break;
    next();
    if (first != nullptr) expression.parts.push_back(std::move(first));
    PKV_ASSIGN_OR_RETURN(ExpressionPtr right, parse_sum());
    expression.parts.push_back(std::move(right));
  }
  return first != nullptr ? Parsed(std::move(first)) : finish(std::move(expression));
}

Parser::Parsed Parser::parse_sum() {
  PKV_ASSIGN_OR_RETURN(ExpressionPtr left, parse_concatenation());
  while (const BinaryRow* row = find_row(kSums, peek())) {
    const Position at = next().at;
    PKV_ASSIGN_OR_RETURN(ExpressionPtr right, parse_concatenation());
    Expression sum = two_parts(Expression::Kind::kBinary, at, std::move(left), std::move(right));
    sum.op = row->op;
    PKV_ASSIGN_OR_RETURN(left, finish(std::move(sum)));
  }
  return left;
}

Parser::Parsed Parser::parse_concatenation() {
  Expression expression{.kind = Expression::Kind::kConcatenate, .at = peek().at};
  do {
    PKV_ASSIGN_OR_RETURN(ExpressionPtr part, parse_product());
    expression.parts.push_back(std::move(part));
  } while (skip_operator("~"));
  if (expression.parts.size() == 1) return std::move(expression.parts[0]);
  return finish(std::move(expression));
}

Parser::Parsed Parser::parse_product() {
  PKV_ASSIGN_OR_RETURN(ExpressionPtr left, parse_power());
  while (const BinaryRow* row = find_row(kProducts, peek())) {
    const Position at = next().at;
    PKV_ASSIGN_OR_RETURN(ExpressionPtr right, parse_power());
    Expression product = two_parts(Expression::Kind::kBinary, at, std::move(left), std::move(right));
    product.op = row->op;
    PKV_ASSIGN_OR_RETURN(left, finish(std::move(product)));
  }
  return left;
}

Parser::Parsed Parser::parse_power() {
  PKV_ASSIGN_OR_RETURN(ExpressionPtr left, parse_unary(/*with_filters=*/true));
  while (const BinaryRow* row = find_row(kPowers, peek())) {
    const Position at = next().at;
    PKV_ASSIGN_OR_RETURN(ExpressionPtr right, parse_unary(/*with_filters=*/true));
    Expression power = two_parts(Expression::Kind::kBinary, at, std::move(left), std::move(right));
    power.op = row->op;
    PKV_ASSIGN_OR_RETURN(left, finish(std::move(power)));
  }
  return left;
}

Parser::Parsed Parser::parse_unary(bool with_filters) {
  ExpressionPtr operand;
  if (at_operator("-") || at_operator("+")) {
    PKV_RETURN_IF_ERROR(enter());
    const Level level(depth_);
    const bool minus = at_operator("-");
    Expression sign{.kind = minus ? Expression::Kind::kNegate : Expression::Kind::kPlus, .at = next().at};
    PKV_ASSIGN_OR_RETURN(ExpressionPtr inner, parse_unary(/*with_filters=*/false));
    sign.parts.push_back(std::move(inner));
    PKV_ASSIGN_OR_RETURN(operand, finish(std::move(sign)));
  } else {
    PKV_ASSIGN_OR_RETURN(operand, parse_primary());
  }
  PKV_ASSIGN_OR_RETURN(operand, parse_postfix(std::move(operand)));
  return with_filters ? parse_filters(std::move(operand)) : Parsed(std::move(operand));
}

}  // namespace pkv::jinja
