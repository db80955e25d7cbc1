// Names, literals, and what stands behind them: attributes, subscripts, calls, filters, tests.
#include <algorithm>
#include <utility>

#include "kernels/status_macros.h"
#include "server/text/jinja/parser.h"

namespace pkv::jinja {

Parser::Parsed Parser::parse_primary() {
  const Token& token = peek();
  Expression constant{.kind = Expression::Kind::kConstant, .at = token.at};
  switch (token.kind) {
    case TokenKind::kName:
      next();
      if (token.text == "true" || token.text == "True" || token.text == "false" || token.text == "False") {
        constant.constant = Value::of(token.text == "true" || token.text == "True");
      } else if (token.text == "none" || token.text == "None") {
        constant.constant = Value::none();
      } else {
        constant.kind = Expression::Kind::kName;
        constant.name = intern(token.text);
        if (constant.name == program_.caller) asks_caller_ = true;
      }
      return finish(std::move(constant));
    case TokenKind::kString: {
      std::string text;
      while (peek().kind == TokenKind::kString) text += next().text;  // neighbours are one
      constant.constant = Value::string(Text(std::move(text)));
      return finish(std::move(constant));
    }
    case TokenKind::kInteger:
      constant.constant = Value::of(next().integer);
      return finish(std::move(constant));
    case TokenKind::kReal:
      constant.constant = Value::of(next().real);
      return finish(std::move(constant));
    default:
      break;
  }
  if (skip_operator("(")) {
    PKV_ASSIGN_OR_RETURN(ExpressionPtr inner, parse_tuple(/*conditional=*/true, /*in_parentheses=*/true));
    PKV_RETURN_IF_ERROR(expect_operator(")"));
    return inner;
  }
  if (at_operator("[")) return parse_list();
  if (at_operator("{")) return parse_dict();
  return unexpected("an expression");
}

Parser::Parsed Parser::parse_list() {
  Expression list{.kind = Expression::Kind::kList, .at = next().at};
  while (!at_operator("]")) {
    if (!list.parts.empty()) PKV_RETURN_IF_ERROR(expect_operator(","));
    if (at_operator("]")) break;
    PKV_ASSIGN_OR_RETURN(ExpressionPtr item, parse_expression());
    list.parts.push_back(std::move(item));
  }
  next();
  return finish(std::move(list));
}

Parser::Parsed Parser::parse_dict() {
  Expression dict{.kind = Expression::Kind::kDict, .at = next().at};
  while (!at_operator("}")) {
    if (!dict.parts.empty()) PKV_RETURN_IF_ERROR(expect_operator(","));
    if (at_operator("}")) break;
    PKV_ASSIGN_OR_RETURN(ExpressionPtr key, parse_expression());
    PKV_RETURN_IF_ERROR(expect_operator(":"));
    PKV_ASSIGN_OR_RETURN(ExpressionPtr value, parse_expression());
    dict.parts.push_back(std::move(key));
    dict.parts.push_back(std::move(value));
  }
  next();
  return finish(std::move(dict));
}

Parser::Parsed Parser::parse_postfix(ExpressionPtr expression) {
  while (true) {
    if (at_operator(".") || at_operator("[")) {
      PKV_ASSIGN_OR_RETURN(expression, parse_subscript(std::move(expression)));
    } else if (at_operator("(")) {
      PKV_ASSIGN_OR_RETURN(expression, parse_call(std::move(expression)));
    } else {
      return expression;
    }
  }
}

Parser::Parsed Parser::parse_filters(ExpressionPtr expression) {
  while (true) {
    if (skip_operator("|")) {
      PKV_ASSIGN_OR_RETURN(expression, parse_filter(std::move(expression)));
    } else if (at_name("is")) {
      PKV_ASSIGN_OR_RETURN(expression, parse_test(std::move(expression)));
    } else if (at_operator("(")) {
      PKV_ASSIGN_OR_RETURN(expression, parse_call(std::move(expression)));
    } else {
      return expression;
    }
  }
}

Parser::Parsed Parser::parse_subscript(ExpressionPtr expression) {
  Expression access{.kind = Expression::Kind::kItem, .at = peek().at};
  access.parts.push_back(std::move(expression));
  if (skip_operator(".")) {
    if (peek().kind == TokenKind::kInteger) {
      PKV_ASSIGN_OR_RETURN(ExpressionPtr index, parse_primary());
      access.parts.push_back(std::move(index));
      return finish(std::move(access));
    }
    access.kind = Expression::Kind::kAttribute;
    PKV_ASSIGN_OR_RETURN(access.text, any_name("the name of an attribute"));
    return finish(std::move(access));
  }
  next();
  ExpressionPtr bounds[3];
  size_t colons = 0;
  while (!at_operator("]")) {
    if (at_operator(":") && colons < 2) {
      next();
      ++colons;
      continue;
    }
    if (bounds[colons] != nullptr) return unexpected("']'");
    PKV_ASSIGN_OR_RETURN(bounds[colons], parse_expression());
  }
  if (colons == 0 && bounds[0] == nullptr) return unexpected("an expression");
  next();
  access.parts.push_back(std::move(bounds[0]));
  if (colons == 0) return finish(std::move(access));
  access.kind = Expression::Kind::kSlice;
  access.parts.push_back(std::move(bounds[1]));
  access.parts.push_back(std::move(bounds[2]));
  return finish(std::move(access));
}

Parser::Parsed Parser::parse_call(ExpressionPtr callee) {
  Expression call{.kind = Expression::Kind::kCall, .at = peek().at};
  if (callee->kind == Expression::Kind::kName) calls_.push_back({callee->name, callee->at});
  call.parts.push_back(std::move(callee));
  PKV_RETURN_IF_ERROR(parse_arguments(call));
  return finish(std::move(call));
}

// (a, b, name=c), behind what `expression` has already.
absl::Status Parser::parse_arguments(Expression& expression) {
  PKV_RETURN_IF_ERROR(expect_operator("("));
  bool first = true;
  while (!at_operator(")")) {
    if (!first) PKV_RETURN_IF_ERROR(expect_operator(","));
    first = false;
    if (at_operator(")")) break;
    PKV_RETURN_IF_ERROR(parse_argument(expression));
  }
  next();
  return absl::OkStatus();
}

// a, b=a, *a or **a. Behind **a nothing may stand, behind *a no other and nothing without a name.
absl::Status Parser::parse_argument(Expression& expression) {
  std::vector<std::string>& keywords = expression.keywords;
  const Position at = peek().at;
  const bool list = at_operator("*");
  const bool last = !keywords.empty() && keywords.back() == "**";
  if (last || (list && std::find(keywords.begin(), keywords.end(), "*") != keywords.end())) {
    return syntax_error(at, "an argument behind those from a list or dict");
  }
  if (list || at_operator("**")) {
    keywords.push_back(next().text);
  } else if (peek().kind == TokenKind::kName && peek(1).is_operator("=")) {
    keywords.push_back(next().text);
    next();
  } else if (!keywords.empty()) {
    return syntax_error(at, "an argument without a name behind one that has it");
  }
  PKV_ASSIGN_OR_RETURN(ExpressionPtr argument, parse_expression());
  expression.parts.push_back(std::move(argument));
  return absl::OkStatus();
}

// What stands behind a |.
Parser::Parsed Parser::parse_filter(ExpressionPtr expression) {
  Expression filter{.kind = Expression::Kind::kFilter, .at = peek().at};
  PKV_ASSIGN_OR_RETURN(filter.text, any_name("the name of a filter"));
  filter.function = find_filter(filter.text);
  if (filter.function == nullptr) return syntax_error(filter.at, "unknown filter '", filter.text, "'");
  filter.parts.push_back(std::move(expression));
  if (at_operator("(")) PKV_RETURN_IF_ERROR(parse_arguments(filter));
  PKV_RETURN_IF_ERROR(check_selection(filter));
  return finish(std::move(filter));
}

// The filters and tests that map, select and their like name in a string.
absl::Status Parser::check_selection(const Expression& filter) const {
  const bool map = filter.text == "map";
  const bool by_attribute = filter.text == "selectattr" || filter.text == "rejectattr";
  const bool by_value = filter.text == "select" || filter.text == "reject";
  if (!map && !by_attribute && !by_value) return absl::OkStatus();
  const size_t at = by_attribute ? 2 : 1;
  if (filter.parts.size() - filter.keywords.size() <= at) return absl::OkStatus();
  const String* name = filter.parts[at]->constant.string();
  if (name == nullptr) return absl::OkStatus();
  const std::string& text = name->text.bytes();
  if ((map ? find_filter(text) : find_test(text)) != nullptr) return absl::OkStatus();
  return syntax_error(filter.parts[at]->at, "unknown ", map ? "filter" : "test", " '", text, "'");
}

Parser::Parsed Parser::parse_test(ExpressionPtr expression) {
  const Position at = next().at;
  const bool negated = skip_name("not");
  Expression test{.kind = Expression::Kind::kTest, .at = peek().at};
  PKV_ASSIGN_OR_RETURN(test.text, any_name("the name of a test"));
  test.function = find_test(test.text);
  if (test.function == nullptr) return syntax_error(test.at, "unknown test '", test.text, "'");
  const bool asks_name = expression->kind == Expression::Kind::kName;
  if (asks_name && (test.text == "defined" || test.text == "undefined")) program_.tested[expression->name] = true;
  test.parts.push_back(std::move(expression));
  const Token& token = peek();
  const bool bracket = at_operator("[") || at_operator("{");
  const bool word = token.kind == TokenKind::kName && token.text != "else" && token.text != "or" &&
                    token.text != "and" && token.text != "is";
  if (at_operator("(")) {
    PKV_RETURN_IF_ERROR(parse_arguments(test));
  } else if (bracket || word || token.kind == TokenKind::kString || token.kind == TokenKind::kInteger ||
             token.kind == TokenKind::kReal) {  // x is divisibleby 3
    PKV_ASSIGN_OR_RETURN(ExpressionPtr argument, parse_primary());
    PKV_ASSIGN_OR_RETURN(argument, parse_postfix(std::move(argument)));
    test.parts.push_back(std::move(argument));
  }
  PKV_ASSIGN_OR_RETURN(ExpressionPtr done, finish(std::move(test)));
  if (!negated) return done;
  Expression negation{.kind = Expression::Kind::kNot, .at = at};
  negation.parts.push_back(std::move(done));
  return finish(std::move(negation));
}

}  // namespace pkv::jinja
