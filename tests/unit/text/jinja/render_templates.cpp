// render_templates: reads lines {"template": text, "cases": [variables, ...]}, as compare_templates.py writes them, and
// writes for each what the interpreter makes of it: {"refused": why} where it is not loaded, else {"cases": [...]} of
// {"text"}, {"raised"}, {"failed"} or {"exhausted"}.
#include <iostream>
#include <string>

#include "tests/unit/text/jinja/cases.h"

namespace pkv::jinja {
namespace {

using test::Json;

Json outcome(const Template& compiled, const Json& variables) {
  const auto rendered = compiled.render(test::chat_variables(variables), test::some_time());
  if (rendered.ok()) return {{"text", rendered->bytes()}};
  const std::string words(rendered.status().message());
  switch (rendered.status().code()) {
    case absl::StatusCode::kInvalidArgument:
      return {{"raised", words}};
    case absl::StatusCode::kResourceExhausted:
      return {{"exhausted", words}};
    default:
      return {{"failed", words}};
  }
}

Json outcomes(const Json& line) {
  const auto compiled = Template::parse(line["template"].get<std::string>());
  if (!compiled.ok()) return {{"refused", std::string(compiled.status().message())}};
  Json cases = Json::array();
  for (const Json& variables : line["cases"]) cases.push_back(outcome(*compiled, variables));
  return {{"cases", cases}};
}

}  // namespace
}  // namespace pkv::jinja

int main() {
  for (std::string line; std::getline(std::cin, line);) {
    std::cout << pkv::jinja::outcomes(pkv::jinja::test::Json::parse(line)).dump() << '\n';
  }
}
