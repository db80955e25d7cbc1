// What all of the parser shares: tokens, names, limits, and the check of what the template calls.
#include "server/text/jinja/parser.h"

#include <algorithm>
#include <utility>

#include "kernels/status_macros.h"
#include "server/text/jinja/words.h"

namespace pkv::jinja {
namespace {

// Trees deeper than the nesting of the source: chains of operators.
constexpr int kMaxTreeDepth = 250;

// Names that Jinja binds itself and we do not have.
constexpr std::string_view kUnsupportedNames[] = {"varargs", "kwargs", "self", "super"};

}  // namespace

const Token& Parser::peek(size_t ahead) const { return tokens_[std::min(at_ + ahead, tokens_.size() - 1)]; }

const Token& Parser::next() {
  const Token& token = peek();
  if (at_ + 1 < tokens_.size()) ++at_;
  return token;
}

bool Parser::skip_operator(std::string_view which) {
  if (!at_operator(which)) return false;
  next();
  return true;
}

bool Parser::skip_name(std::string_view which) {
  if (!at_name(which)) return false;
  next();
  return true;
}

absl::Status Parser::unexpected(std::string_view wanted) const {
  if (wanted.empty()) return syntax_error(peek().at, "unexpected ", describe(peek()));
  return syntax_error(peek().at, "unexpected ", describe(peek()), ", expected ", wanted);
}

absl::Status Parser::expect_operator(std::string_view which) {
  return skip_operator(which) ? absl::OkStatus() : unexpected(words("'", which, "'"));
}

absl::Status Parser::expect_name(std::string_view which) {
  return skip_name(which) ? absl::OkStatus() : unexpected(words("'", which, "'"));
}

absl::Status Parser::expect(TokenKind kind, std::string_view what) {
  if (peek().kind != kind) return unexpected(what);
  next();
  return absl::OkStatus();
}

absl::StatusOr<std::string> Parser::any_name(std::string_view what) {
  if (peek().kind != TokenKind::kName) return unexpected(what);
  return next().text;
}

NameId Parser::intern(const std::string& name) {
  const auto [found, added] = ids_.try_emplace(name, static_cast<NameId>(program_.names.size()));
  if (added) {
    program_.names.push_back(name);
    program_.tested.push_back(false);
    assigned_.push_back(false);
  }
  return found->second;
}

// Of what a template makes: no constant, and not what Jinja makes of a {% call %} block.
absl::StatusOr<NameId> Parser::assignable_name(std::string_view what) {
  const Position at = peek().at;
  PKV_ASSIGN_OR_RETURN(const std::string name, any_name(what));
  for (const std::string_view fixed : {"true", "True", "false", "False", "none", "None", "caller"}) {
    if (name == fixed) return syntax_error(at, "cannot assign to '", name, "'");
  }
  return intern(name);
}

absl::Status Parser::enter() {
  if (++depth_ <= limits_.nesting) return absl::OkStatus();
  --depth_;
  return syntax_error(peek().at, "nested more than ", limits_.nesting, " deep");
}

Parser::Parsed Parser::finish(Expression expression) {
  int depth = 0;
  for (const ExpressionPtr& part : expression.parts) {
    if (part != nullptr) depth = std::max(depth, part->depth);
  }
  expression.depth = depth + 1;
  if (expression.depth > kMaxTreeDepth) {
    return syntax_error(expression.at, "an expression of more than ", kMaxTreeDepth, " operators in each other");
  }
  return std::make_unique<const Expression>(std::move(expression));
}

// A function that is neither ours nor made by the template could only fail, unless the template asks for it first.
absl::Status Parser::check_names() const {
  for (const CallSite& call : calls_) {
    const std::string& name = program_.names[call.name];
    if (assigned_[call.name] || program_.tested[call.name] || find_global(name) != nullptr) continue;
    return syntax_error(call.at, "unknown function '", name, "'");
  }
  return absl::OkStatus();
}

absl::StatusOr<Program> Parser::run() && {
  program_.loop = intern("loop");
  program_.caller = intern("caller");
  assigned_[program_.caller] = true;
  for (size_t i = 0; i < tokens_.size(); ++i) {
    const Token& token = tokens_[i];
    if (token.kind != TokenKind::kName || (i > 0 && tokens_[i - 1].is_operator("."))) continue;
    if (std::find(std::begin(kUnsupportedNames), std::end(kUnsupportedNames), token.text) !=
        std::end(kUnsupportedNames)) {
      return syntax_error(token.at, "'", token.text, "' is not supported");
    }
  }
  PKV_RETURN_IF_ERROR(parse_body(program_.body, {}));
  PKV_RETURN_IF_ERROR(check_names());
  return std::move(program_);
}

absl::StatusOr<Program> parse(std::string_view source, const Limits& limits) {
  if (source.size() > limits.source_bytes) {
    return absl::InvalidArgumentError(
        words("a template of ", source.size(), " bytes; at most ", limits.source_bytes, " are read"));
  }
  PKV_ASSIGN_OR_RETURN(std::vector<Token> tokens, tokenize(source));
  return Parser(std::move(tokens), limits).run();
}

}  // namespace pkv::jinja
