// Templates that want more than they may have.
#include <gmock/gmock.h>

#include "server/text/jinja/template.h"

namespace pkv::jinja {
namespace {

using testing::HasSubstr;

std::string repeated(const std::string& text, int times) {
  std::string out;
  for (int i = 0; i < times; ++i) out += text;
  return out;
}

const Limits kSmall{.steps = 200'000, .memory_bytes = 4 << 20};

absl::Status outcome(const std::string& text, const Limits& limits = kSmall) {
  const auto parsed = Template::parse(text, limits);
  if (!parsed.ok()) return parsed.status();
  const std::string content(100'000, 'a');
  return parsed->render({{"content", Value::string(Text(content, 0))}}).status();
}

TEST(JinjaBounds, Steps) {
  const std::vector<std::string> cases = {
      "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
      "{% for a in range(1000) %}{{ content.count('b') }}{% endfor %}" + repeated("{{ content | upper }}", 2000),
      "{% for a in range(100000) %}{{ content[99999] }}{% endfor %}",
      "{% for a in range(100000) %}{% if content == content ~ '' %}{% endif %}{% endfor %}",
      "{{ content.rfind('b' * 50000 ~ 'a') }}{{ (content * 30).rfind('a' * 40000 ~ 'b' ~ 'a' * 40000) }}",
      "{% for i in range(30000) %}{{ range(10000) | list | unique | list | length }}{% endfor %}",
      "{% for i in range(100) %}{{ range(50000) | sort | first }}{% endfor %}",
      "{% set n = namespace(x=[1], y=[1]) %}{% for i in range(50) %}{% set n.x = [n.x, n.x] %}{% set n.y = [n.y, n.y] "
      "%}{% endfor %}{{ n.x == n.y }}",
      "{% set l = range(50000) | list %}{% for i in range(100000) %}{{ l | sum }}{% endfor %}",
      "{% for i in range(100000) %}{% if 'a'.startswith(content) %}{% endif %}{% endfor %}",
      "{% for i in range(100000) %}{{ content | int }}{% endfor %}",
      "{% for i in range(100000) %}{{ dict(a=1, b=2) | items | list | length }}{% endfor %}",
      "{{ 'x' * 100000000000 }}",
      "{{ '' * 100000000000 }}" + repeated("{{ content.split('a') | length }}", 30),
      "{{ [] * 100000000000 }}{{ [1] * 100000000000 }}",
      "{{ 'x'.center(1000000000000) }}",
      "{{ 'x' | indent(1000000000000) }}",
      "{{ [1] | tojson(indent=1000000000000) }}",
  };
  for (const std::string& text : cases) {
    const absl::Status status = outcome(text);
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << text.substr(0, 200) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("line 1, column ")) << text.substr(0, 200);
  }
}

TEST(JinjaBounds, Memory) {
  const Limits limits{.memory_bytes = 1 << 20};
  const std::vector<std::string> cases = {
      "{% set n = namespace(s='x') %}{% for i in range(40) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
      "{{ content * 20 }}",
      "{{ content | replace('a', 'aaaaaaaaaaaaaaaaaaaa') }}",
      "{{ content | replace('', 'aaaaaaaaaaaaaaaaaaaa') }}",
      "{{ content.split('a') | length }}",
      "{{ content | list | length }}",
      "{% for c in content %}{% endfor %}",
      "{% for i in range(100) %}{{ content }}{% endfor %}",
      "{% set n = namespace(l=[]) %}{% for i in range(1000) %}{% set n.l = n.l + [content ~ i] %}{% endfor %}",
      "{{ range(90000) | map('string') | list | length }}",
      "{{ ['a'] * 90000 }}",
      "{% set n = namespace(l=[]) %}{% for i in range(3000) %}{% set n.l = n.l + [n.l | length] %}{% endfor %}{% for i "
      "in range(9000) %}{% set x %}{% macro m() %}{% endmacro %}{{ m is defined }}{% endset %}{% endfor %}",
      "{% set n = namespace(x=[1]) %}{% for i in range(50) %}{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x }}",
      "{{ [content, content, content] | tojson | tojson | tojson | tojson }}",
      "{{ '%1000s%1000s' % (content * 5, content * 5) }}",
      "{{ content | e | e | indent | upper ~ content * 8 }}",
      "{{ range(*([1] * 30000)) }}",
      "{{ range(**{content * 6: 1}) }}",
      "{% macro m() %}{{ caller() }}{% endmacro %}{% for i in range(9000) %}{% call m() %}{% endcall %}{% endfor %}",
  };
  for (const std::string& text : cases) {
    const absl::Status status = outcome(text, limits);
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << text << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("more memory")) << text;
  }
}

// A range costs as long as it lives; a text also costs where its bytes come from, here another place at each byte.
TEST(JinjaBounds, MemoryBesideTheBytes) {
  const Limits limits{.memory_bytes = 1 << 20};
  const std::vector<std::string> cases = {
      "{% set n = namespace(l=[]) %}{% for i in range(10) %}{% set n.l = n.l + [range(10000)] %}{% endfor %}",
      "{% set s = (content[0] ~ '-') * 1000 %}{% for i in range(60) %}{{ s }}{% endfor %}",
  };
  for (const std::string& text : cases) {
    EXPECT_THAT(outcome(text, limits).ToString(), HasSubstr("more memory")) << text;
  }
}

// What comes after the last of the budget is not looked at: it would fail otherwise, or take minutes.
TEST(JinjaBounds, LoopsEndWithTheBudget) {
  const std::vector<std::string> cases = {
      "{{ ([[1] * 100] * 5000 + ['x']) | sum(start=[]) }}",
      "{{ ([content] * 1000 + [nothing]) | sort(attribute=0) }}",
      "{{ [content] | sort(attribute='0,' * 50000) }}",
      "{{ ([content] * 1000 + [nothing]) | max }}",
      "{% set d = dict(range(600) | map('string') | batch(2)) %}{% for i in range(3000) %}{{ 'x' % d }}{% endfor %}"
      "{{ nothing.x }}",
  };
  for (const std::string& text : cases) {
    const absl::Status status = outcome(text);
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << text << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("line 1, column ")) << text;
  }
}

TEST(JinjaBounds, MemoryIsGivenBack) {
  const Limits limits{.memory_bytes = 1 << 20};
  EXPECT_TRUE(outcome("{% for i in range(300) %}{% set x = content ~ i %}{% endfor %}", limits).ok());
  EXPECT_TRUE(outcome("{% for i in range(300) %}{% set x %}{{ content }}{% endset %}{% endfor %}", limits).ok());
  EXPECT_TRUE(outcome("{% for i in range(300) %}{% set x = range(10000) %}{% endfor %}", limits).ok());
}

// Templates ask at each message how many there are; that is no walk through all of them.
TEST(JinjaBounds, TheLengthOfAListIsCheap) {
  const std::string text = "{% set l = range(10000) %}{% for i in range(5000) %}{{ l | length }}{% endfor %}";
  EXPECT_TRUE(outcome(text).ok()) << outcome(text);
}

TEST(JinjaBounds, Depth) {
  const std::string self = "{% macro m(x) %}{{ m(x) }}{% endmacro %}{{ m(1) }}";
  EXPECT_THAT(outcome(self).ToString(), HasSubstr("calls itself too deeply"));
  const std::string caller =
      "{% macro m() %}{% call m() %}{{ caller() }}{% endcall %}{% endmacro %}{% call m() %}{% endcall %}";
  EXPECT_THAT(outcome(caller).ToString(), HasSubstr("calls itself too deeply"));
  const std::string nested =
      "{% set n = namespace(x=[]) %}{% for i in range(10000) %}{% set n.x = [n.x] %}{% endfor %}";
  EXPECT_THAT(outcome(nested).ToString(), HasSubstr("too deeply"));
  const std::string dicts =
      "{% set n = namespace(x=1) %}{% for i in range(100) %}{% set n.x = {'a': n.x} %}{% endfor %}";
  EXPECT_THAT(outcome(dicts).ToString(), HasSubstr("too deeply"));
  const std::string loops =
      "{% set n = namespace(x=[1]) %}{% for i in range(100) %}{% for j in n.x %}{% set n.x = [loop] %}{% endfor %}"
      "{% endfor %}";
  EXPECT_THAT(outcome(loops).ToString(), HasSubstr("too deeply"));
  // A namespace in itself is no value in values.
  EXPECT_TRUE(outcome("{% set n = namespace() %}{% set n.me = n %}{{ n.me.me.me is defined }}").ok());
}

TEST(JinjaBounds, Parsing) {
  const int deep = 5000;
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"{{ " + repeated("(", deep) + "1" + repeated(")", deep) + " }}", "nested more than"},
      {"{{ " + repeated("[", deep) + repeated("]", deep) + " }}", "nested more than"},
      {"{{ " + repeated("{1:", deep) + "1" + repeated("}", deep) + " }}", "nested more than"},
      {"{{ " + repeated("not ", deep) + "1 }}", "nested more than"},
      {"{{ " + repeated("-", deep) + "1 }}", "nested more than"},
      {"{{ " + repeated("x if y else ", deep) + "1 }}", "nested more than"},
      {"{{ " + repeated("f(", deep) + repeated(")", deep) + " }}", "nested more than"},
      {"{{ " + repeated("a[", deep) + "1" + repeated("]", deep) + " }}", "nested more than"},
      {repeated("{% if x %}", deep), "nested more than"},
      {repeated("{% for x in y %}", deep), "nested more than"},
      {repeated("{% call f() %}", deep), "nested more than"},
      {"{{ " + repeated("f(*", deep) + repeated(")", deep) + " }}", "nested more than"},
      {"{% for " + repeated("(", deep) + "x" + repeated(")", deep) + " in y %}{% endfor %}", "nested more than"},
      {"{{ 1" + repeated(" + 1", deep) + " }}", "operators in each other"},
      {"{{ x" + repeated(".y", deep) + " }}", "operators in each other"},
      {"{{ x" + repeated(" | trim", deep) + " }}", "operators in each other"},
      {"{{ x" + repeated("()", deep) + " }}", "operators in each other"},
      {"{{ x" + repeated(" is defined", deep) + " }}", "operators in each other"},
      {"{{ x" + repeated(" or x", deep) + " }}", "operators in each other"},
      {std::string(1 << 20, 'x'), "a template of 1048576 bytes; at most 262144 are read"},
  };
  for (const auto& [text, expected] : cases) {
    const auto parsed = Template::parse(text);
    EXPECT_EQ(parsed.status().code(), absl::StatusCode::kInvalidArgument) << text.substr(0, 20);
    EXPECT_THAT(std::string(parsed.status().message()), HasSubstr(expected)) << text.substr(0, 20);
  }
  // Long, but not deep.
  EXPECT_TRUE(Template::parse("{{ a ~ " + repeated("x ~ ", deep) + "1 }}").ok());
  EXPECT_TRUE(Template::parse("{% if a %}" + repeated("{% elif b %}", deep) + "{% endif %}").ok());
  EXPECT_TRUE(Template::parse("{{ [" + repeated("1, ", deep) + "] }}").ok());
}

TEST(JinjaBounds, AllOfTheDepthAtOnce) {
  std::string text = "{% macro m(x) %}" + repeated("{% if x %}", 50) + "{{ " + repeated("(", 50) + "m(x)" +
                     repeated(")", 50) + repeated(" ~ 1 + 1", 50) + " }}" + repeated("{% endif %}", 50) +
                     "{% endmacro %}{{ m(1) }}";
  EXPECT_THAT(outcome(text, Limits{}).ToString(), HasSubstr("calls itself too deeply"));
}

}  // namespace
}  // namespace pkv::jinja
