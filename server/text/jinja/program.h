// A parsed template.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "server/text/jinja/functions.h"
#include "server/text/jinja/operations.h"
#include "server/text/jinja/position.h"
#include "server/text/jinja/value.h"

namespace pkv::jinja {

using NameId = uint32_t;  // index into Program::names

struct Expression;
using ExpressionPtr = std::unique_ptr<const Expression>;

enum class Comparison : uint8_t { kEqual, kNotEqual, kLess, kLessEqual, kGreater, kGreaterEqual, kIn, kNotIn };

struct Expression {
  enum class Kind : uint8_t {
    kConstant,
    kName,
    kList,
    kTuple,
    kDict,         // parts: key, value, key, value...
    kConditional,  // parts: condition, then, perhaps else
    kOr,
    kAnd,
    kNot,
    kCompare,  // parts: one more than comparisons
    kBinary,
    kNegate,
    kPlus,
    kConcatenate,
    kAttribute,  // parts: object; text
    kItem,       // parts: object, key
    kSlice,      // parts: object, start, stop, step
    kCall,       // parts: what is called, arguments
    kFilter,     // parts: value, arguments
    kTest,       // parts: value, arguments
    kCaptured,   // what a filter or set block has written
  };

  Kind kind = Kind::kConstant;
  BinaryOperator op = BinaryOperator::kAdd;
  Position at;
  int depth = 1;  // of expressions in it
  NameId name = 0;
  Value constant;
  std::string text;
  const Function* function = nullptr;  // of kFilter, kTest
  std::vector<ExpressionPtr> parts;
  // Names of the last arguments; "*" and "**" of a list and a dict that arguments are taken from.
  std::vector<std::string> keywords;
  std::vector<Comparison> comparisons;
};

// What {% set %} and {% for %} assign to: a name, an attribute of a namespace, or several of these.
struct Target {
  Position at;
  NameId name = 0;
  std::string attribute;  // of the namespace `name`; empty: the name itself
  std::vector<Target> parts;
};

struct Statement;
using Body = std::vector<std::unique_ptr<const Statement>>;

struct Statement {
  enum class Kind : uint8_t {
    kText,      // text
    kPrint,     // expressions[0]
    kIf,        // expressions: conditions; bodies: one each, perhaps one more for else
    kFor,       // expressions: what is walked through, perhaps a filter; bodies: loop, else
    kSet,       // target, expressions[0]
    kSetBlock,  // target, expressions[0] of what bodies[0] writes
    kFilter,    // expressions[0] of what bodies[0] writes
    kMacro,     // name, parameters, expressions: defaults of the last of them; bodies[0]
    kCall,      // expressions[0], a call that is also given the one macro in bodies[0]
    kWith,      // parameters, expressions: their values; bodies[0]
    kPlain,     // bodies[0], as if it stood there alone
    kBreak,
    kContinue,
  };

  Kind kind = Kind::kText;
  Position at;
  Text text;
  Target target;
  NameId name = 0;
  bool asks_caller = false;  // of kMacro: bodies[0] has the name `caller`
  std::vector<NameId> parameters;
  std::vector<ExpressionPtr> expressions;
  std::vector<Body> bodies;
};

struct Program {
  std::vector<std::string> names;
  std::vector<bool> tested;  // per name: whether the template asks if it is defined
  Body body;
  NameId loop = 0;    // the name `loop`
  NameId caller = 0;  // the name `caller`: in a macro, what stands in the {% call %} block that calls it
};

}  // namespace pkv::jinja
