// Templates of the cases, damaged at random: none of them may do harm.
#include <gmock/gmock.h>

#include <random>

#include "tests/unit/text/jinja/cases.h"

namespace pkv::jinja {
namespace {

constexpr std::string_view kParts[] = {"{{",
                                       "}}",
                                       "{%",
                                       "%}",
                                       "{#",
                                       "#}",
                                       "-",
                                       "+",
                                       "'",
                                       "\"",
                                       "\\",
                                       "(",
                                       ")",
                                       "[",
                                       "]",
                                       "{",
                                       "}",
                                       "|",
                                       " is ",
                                       " not ",
                                       " in ",
                                       " if ",
                                       " else ",
                                       ".",
                                       ",",
                                       ":",
                                       "~",
                                       "*",
                                       "**",
                                       "//",
                                       "%",
                                       "=",
                                       "==",
                                       "<",
                                       "0",
                                       "9223372036854775807",
                                       "-1",
                                       "1e308",
                                       "none",
                                       "true",
                                       "messages",
                                       "loop",
                                       "loop.previtem",
                                       "n",
                                       "s",
                                       "d",
                                       "users",
                                       "\n",
                                       " ",
                                       "\xC3",
                                       "\xF0\x9F",
                                       "\xFF",
                                       "\xE2\x80\xA8",
                                       "| list",
                                       "| join",
                                       "| tojson",
                                       "| sort",
                                       "| first",
                                       "| map('upper')",
                                       "| length",
                                       "| indent(999)",
                                       "| string",
                                       "| reverse",
                                       ".split('l')",
                                       "[::-1]",
                                       "[1:]",
                                       "* 999",
                                       "{% endfor %}",
                                       "{% endif %}",
                                       "{% else %}",
                                       "{% for i in users %}",
                                       "{% set ns = namespace(a=1) %}",
                                       "{% set ns.a = [ns.a, ns] %}",
                                       "{% macro m(x) %}",
                                       "{% endmacro %}",
                                       "{{ m(m) }}",
                                       "{% break %}",
                                       "range(99999)",
                                       ".items()",
                                       "{% raw %}",
                                       "{% endraw %}",
                                       "{% filter upper %}",
                                       "{% endfilter %}"};

class Mutator {
 public:
  explicit Mutator(std::vector<std::string> seeds) : seeds_(std::move(seeds)) {}

  std::string next() {
    std::string text = seeds_[pick(seeds_.size())];
    if (text.size() > 2000) text = text.substr(pick(text.size() - 2000), 2000);
    for (size_t i = 1 + pick(4); i > 0; --i) mutate(text);
    return text;
  }

 private:
  size_t pick(size_t count) { return count == 0 ? 0 : random_() % count; }

  void mutate(std::string& text) {
    const size_t at = pick(text.size() + 1);
    const size_t size = pick(std::min<size_t>(text.size() - at, 12) + 1);
    switch (pick(5)) {
      case 0:
        text.erase(at, size);
        break;
      case 1:
        text.insert(at, kParts[pick(std::size(kParts))]);
        break;
      case 2:
        text.replace(at, size, kParts[pick(std::size(kParts))]);
        break;
      case 3:
        text.insert(at, text.substr(pick(text.size()), size * 3));
        break;
      default: {
        const std::string& other = seeds_[pick(seeds_.size())];
        text.insert(at, other.substr(pick(other.size()), 60));
      }
    }
  }

  std::vector<std::string> seeds_;
  std::mt19937 random_{20261129};
};

TEST(JinjaMutations, DoNoHarm) {
  std::vector<std::string> seeds;
  for (const char* kind : {"snippets", "chats"}) {
    for (const auto& one : test::cases()[kind]) seeds.push_back(one["template"].get<std::string>());
  }
  Variables variables = test::plain_variables(test::cases()["variables"]);
  for (auto& variable : test::chat_variables(test::cases()["chats"][0]["cases"][3]["variables"])) {
    variables.push_back(std::move(variable));
  }
  const Limits limits{.steps = 20'000, .memory_bytes = 1 << 20};
  Mutator mutator(std::move(seeds));
  int parsed = 0, rendered = 0;
  for (int i = 0; i < 6000; ++i) {
    const std::string text = mutator.next();
    const auto compiled = Template::parse(text, limits);
    if (!compiled.ok()) {
      EXPECT_EQ(compiled.status().code(), absl::StatusCode::kInvalidArgument) << text;
      EXPECT_THAT(std::string(compiled.status().message()), testing::StartsWith("line ")) << text;
      continue;
    }
    ++parsed;
    const auto result = compiled->render(variables, test::some_time());
    if (result.ok()) {
      ++rendered;
      EXPECT_LE(result->size(), limits.memory_bytes);
      size_t bytes = 0;
      for (const Piece& piece : result->pieces()) bytes += piece.text.size();
      EXPECT_EQ(bytes, result->size());
    } else {
      const auto code = result.status().code();
      EXPECT_TRUE(code == absl::StatusCode::kInvalidArgument || code == absl::StatusCode::kFailedPrecondition ||
                  code == absl::StatusCode::kResourceExhausted)
          << text << result.status();
    }
  }
  EXPECT_GT(parsed, 600);  // enough of them run
  EXPECT_GT(rendered, 300);
}

}  // namespace
}  // namespace pkv::jinja
