// What is refused, when, and in which words.
#include <gmock/gmock.h>

#include "tests/unit/text/jinja/cases.h"

namespace pkv::jinja {
namespace {

using testing::HasSubstr;

TEST(JinjaRefusals, AtLoadByLineAndColumn) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"a\nb {{ x | nofilter }}", "line 2, column 10: unknown filter 'nofilter'"},
      {"{{ x is nosuch }}", "line 1, column 9: unknown test 'nosuch'"},
      {"{% if x %}\n  {{ now() }}{% endif %}", "line 2, column 6: unknown function 'now'"},
      {"{{ l | map('nofilter') }}", "line 1, column 12: unknown filter 'nofilter'"},
      {"{{ l | selectattr('a', 'nosuch') }}", "line 1, column 24: unknown test 'nosuch'"},
      {"{{ l | reject('nosuch') }}", "line 1, column 15: unknown test 'nosuch'"},
      {"\n\n{% include 'x' %}", "line 3, column 4: unknown block 'include'"},
      {"{% for x in y recursive %}{% endfor %}", "line 1, column 15: recursive loops are not supported"},
      {"{{ dict(*x, 1) }}", "line 1, column 13: an argument without a name behind one that has it"},
      {"{{ dict(*x, *y) }}", "line 1, column 13: an argument behind those from a list or dict"},
      {"{{ dict(**x, a=1) }}", "line 1, column 14: an argument behind those from a list or dict"},
      {"{% macro m() %}{{ varargs }}{% endmacro %}", "line 1, column 19: 'varargs' is not supported"},
      {"{% macro m(caller=1) %}{% endmacro %}", "line 1, column 12: cannot assign to 'caller'"},
      {"{% call x %}{% endcall %}", "line 1, column 9: expected a call"},
      {"{% call dict(caller=1) %}{% endcall %}", "line 1, column 9: the block is the call's 'caller'"},
      {"{% call dict() %}\nx", "line 2, column 2: unexpected the end of the template, expected {% endcall %}"},
      {"{{ '\\ud800' }}", "line 1, column 11: the escape is not a character"},
      {"{{ 99999999999999999999 }}", "line 1, column 4: not an integer of 64 bits"},
      {"{{ 'abc", "line 1, column 4: the string has no end"},
      {"x\n  {% if a %}", "line 2, column 13: unexpected the end of the template, expected {% endif %}"},
      {"{{ a $ b }}", "line 1, column 6: unexpected character '$'"},
      {"{{ a ü }}", "line 1, column 6: unexpected character 'ü'"},
      {"{{ (a }}", "line 1, column 7: unexpected '}', expected ')'"},
      {"{# \n\n", "line 1, column 1: the end of the comment is missing"},
      {"{% continue %}", "line 1, column 4: break or continue outside of a loop"},
      {"{% for x in y %}{% macro m() %}{% break %}{% endmacro %}{% endfor %}",
       "line 1, column 35: break or continue outside of a loop"},
  };
  for (const auto& [text, expected] : cases) {
    const auto parsed = Template::parse(text);
    EXPECT_EQ(parsed.status().code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_EQ(std::string(parsed.status().message()), expected);
  }
}

TEST(JinjaRefusals, WhileRunningByLineAndColumn) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"\n{{ x.y }}", "line 2, column 5: 'x' is undefined"},
      {"{{ d.x.y }}", "line 1, column 7: 'dict object' has no attribute 'x'"},
      {"{{ d['x']['y'] }}", "line 1, column 10: 'dict object' has no attribute 'x'"},
      {"{{ 'a' + 1 }}", "line 1, column 8: can only concatenate str (not \"int\") to str"},
      {"{{ none.x() }}", "line 1, column 10: 'None' has no attribute 'x'"},
      {"{{ [1] | join(1, 2, 3) }}", "line 1, column 10: join takes at most 2 arguments, not 3"},
      {"{{ [1] | join(x=1) }}", "line 1, column 10: join has no argument named x"},
      {"{{ 'a' | replace('b') }}", "line 1, column 10: replace needs new"},
      {"{{ 2 ** 64 }}", "line 1, column 6: an integer of more than 64 bits"},
      {"{{ [1] | map('upper', 1) | list }}", "line 1, column 10: upper takes at most 0 arguments, not 1"},
      {"{{ dict(**'ab') }}", "line 1, column 8: arguments are named by a dict, not by str"},
      {"{{ dict(**{1: 2}) }}", "line 1, column 8: an argument is named by a string, not by int"},
      {"{{ dict(a=1, **{'a': 2}) }}", "line 1, column 8: 'a' is given twice"},
      {"\n{% call range(1) %}{% endcall %}", "line 2, column 4: range has no argument named caller"},
      {"{% call dict() %}{% endcall %}", "line 1, column 4: a call block writes a string, not dict"},
      {"{{ caller() }}", "line 1, column 10: 'caller' is undefined"},
      {"{{ strftime_now('%Y') }}", "line 1, column 16: 'strftime_now' is undefined"},
  };
  const Variables variables = {{"d", Value::dict({})}};
  for (const auto& [text, expected] : cases) {
    const auto parsed = Template::parse(text);
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    const auto rendered = parsed->render(variables);
    EXPECT_EQ(rendered.status().code(), absl::StatusCode::kFailedPrecondition) << text;
    EXPECT_EQ(std::string(rendered.status().message()), expected);
  }
}

TEST(JinjaRefusals, FunctionsThatTheTemplateAsksFor) {
  const auto guarded = Template::parse("{% if now is defined %}{{ now() }}{% else %}never{% endif %}");
  ASSERT_TRUE(guarded.ok()) << guarded.status();
  EXPECT_EQ(guarded->render({})->bytes(), "never");
  EXPECT_TRUE(guarded->asks_if_defined("now"));
  EXPECT_TRUE(guarded->uses("now"));
  EXPECT_FALSE(guarded->asks_if_defined("then"));
  EXPECT_FALSE(guarded->uses("then"));
}

TEST(JinjaRefusals, RaisedWordsNameTheItem) {
  const auto parsed = Template::parse(
      "{% for m in l %}{% for c in 'ab' %}{% if m.bad %}{{ raise_exception('bad ' ~ m.name) }}{% endif %}{% endfor %}"
      "{% endfor %}{{ raise_exception('at the end') }}");
  ASSERT_TRUE(parsed.ok());
  const auto item = [](const char* name, bool bad, Source source) {
    return Value::dict({{"name", Value::string(Text(name))}, {"bad", Value::of(bad)}}, source);
  };
  const auto inside = parsed->render({{"l", Value::list({item("x", false, 3), item("y", true, 4)})}}).status();
  EXPECT_EQ(std::string(inside.message()), "bad y");
  EXPECT_EQ(refused_item(inside), 4);
  const auto outside = parsed->render({{"l", Value::list({item("x", false, 3)})}}).status();
  EXPECT_EQ(std::string(outside.message()), "at the end");
  EXPECT_EQ(refused_item(outside), std::nullopt);
}

TEST(JinjaRefusals, RaisedWordsAreCutBetweenCharacters) {
  const auto parsed = Template::parse("{{ raise_exception('ü' * 400) }}");
  const auto status = parsed->render({}).status();
  EXPECT_EQ(status.message().size(), 500u);
}

}  // namespace
}  // namespace pkv::jinja
