// Text keeps where it comes from, whatever is done with it.
#include <gmock/gmock.h>

#include "server/text/jinja/template.h"

namespace pkv::jinja {
namespace {

// What `expression` writes, as "text:source text:source", with `a` and `b` from sources 0 and 1.
std::string sources(const std::string& expression, const std::string& a, const std::string& b) {
  const auto parsed = Template::parse("{{ " + expression + " }}");
  if (!parsed.ok()) return parsed.status().ToString();
  const auto rendered = parsed->render({{"a", Value::string(Text(a, 0))}, {"b", Value::string(Text(b, 1))}});
  if (!rendered.ok()) return rendered.status().ToString();
  std::string out;
  for (const Piece& piece : rendered->pieces()) {
    out += (out.empty() ? "" : " ") + std::string(piece.text) + ":" +
           (piece.source == kTemplate ? "t" : std::to_string(piece.source));
  }
  return out;
}

TEST(JinjaSources, GoThroughOperatorsFiltersAndMethods) {
  const std::vector<std::array<std::string, 4>> cases = {
      {"a + b", "x", "y", "x:0 y:1"},
      {"'<' ~ a ~ '>' ~ b", "x", "y", "<:t x:0 >:t y:1"},
      {"(a + '|' + b) | upper", "xß", "y", "XSS:0 |:t Y:1"},
      {"(' ' + a + ' ') | trim", " x ", "", "x:0"},
      {"('-' + a + b).strip('-xz')", "xy", "yz", "y:0 y:1"},
      {"(a + b)[1:3]", "ab", "cd", "b:0 c:1"},
      {"(a + b)[::-1]", "äb", "cd", "dc:1 bä:0"},
      {"(a ~ ',' ~ b).split(',') | join(';')", "x", "y", "x:0 ;:t y:1"},
      {"a | replace('x', b)", "axb", "yy", "a:0 yy:1 b:0"},
      {"(a ~ b) | replace('xy', '!')", "ax", "yb", "a:0 !:t b:1"},
      {"a * 2", "x", "", "xx:0"},
      {"[a, b]", "x", "y", "[':t x:0 ', ':t y:1 ']:t"},
      {"{'k': a} | tojson", "x\ny", "", "{\"k\": \":t x\\ny:0 \"}:t"},
      {"'%s-%s' % (a, b)", "x", "y", "x:0 -:t y:1"},
      {"'{}{}'.format(a, 'z')", "x", "", "x:0 z:t"},
      {"a | e", "<x", "", "&lt;x:0"},
      {"a | indent(2)", "x\ny", "", "x\n:0   :t y:0"},
      {"a | capitalize ~ (b | title)", "xy", "zw", "Xy:0 Zw:1"},
      {"[b, a] | sort | join", "x", "y", "x:0 y:1"},
      {"a.center(5)", "x", "", "  :t x:0   :t"},
      {"a | length", "xyz", "", "3:t"},
      {"a if b else b", "x", "y", "x:0"},
      {"(a ~ b) | list | last", "x", "y", "y:1"},
      {"a.partition(b) | join('|')", "x-y", "-", "x:0 |:t -:1 |:t y:0"},
      {"[a, b] | map('upper') | join", "x", "y", "X:0 Y:1"},
      {"a | string | safe | default(b)", "x", "y", "x:0"},
  };
  for (const auto& [expression, a, b, expected] : cases) EXPECT_EQ(sources(expression, a, b), expected) << expression;
}

TEST(JinjaSources, GoThroughBlocks) {
  const auto parsed = Template::parse(
      "{% macro m(x) %}[{{ x }}]{% endmacro %}{% set s %}<{{ a }}>{% endset %}{% filter upper %}{{ s }}{{ m(a) }}"
      "{% endfilter %}{% set n = namespace(x='') %}{% for c in a %}{% set n.x = n.x + c %}{% endfor %}{{ n.x }}");
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  const auto rendered = parsed->render({{"a", Value::string(Text("qr", 7))}});
  ASSERT_TRUE(rendered.ok()) << rendered.status();
  std::vector<std::pair<std::string, Source>> pieces;
  for (const Piece& piece : rendered->pieces()) pieces.emplace_back(piece.text, piece.source);
  EXPECT_THAT(pieces, testing::ElementsAre(testing::Pair("<", kTemplate), testing::Pair("QR", 7),
                                           testing::Pair(">[", kTemplate), testing::Pair("QR", 7),
                                           testing::Pair("]", kTemplate), testing::Pair("qr", 7)));
}

TEST(Text, KnowsItsPieces) {
  Text text("ab", 0);
  text.append("", 5);
  text.append("c", 1);
  text.append("d", 1);
  text.append(text, 1, 3);
  EXPECT_EQ(text.bytes(), "abcdbc");
  ASSERT_EQ(text.pieces().size(), 4u);
  EXPECT_EQ(text.source_at(0), 0);
  EXPECT_EQ(text.source_at(2), 1);
  EXPECT_EQ(text.source_at(4), 0);
  EXPECT_EQ(text.source_at(6), 1);
  EXPECT_EQ(text.pieces(1, 3).size(), 2u);
  EXPECT_TRUE(text.pieces(2, 2).empty());
  EXPECT_TRUE(Text().pieces().empty());
  EXPECT_EQ(Text().source_at(0), kTemplate);
  EXPECT_EQ(text.substr(2, 4).pieces().size(), 1u);
}

}  // namespace
}  // namespace pkv::jinja
