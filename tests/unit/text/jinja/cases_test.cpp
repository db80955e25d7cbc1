// The same text as Python's Jinja2, and the same refusals.
#include "tests/unit/text/jinja/cases.h"

#include <gmock/gmock.h>

namespace pkv::jinja {
namespace {

using test::Json;

// What Python made of a template: its text, the words it was refused with, or that it failed or is no template.
void expect_as_python(const Json& expected, const Template& compiled, const Variables& variables) {
  const auto rendered = compiled.render(variables, test::some_time());
  if (expected.contains("text")) {
    ASSERT_TRUE(rendered.ok()) << rendered.status();
    EXPECT_EQ(rendered->bytes(), expected["text"].get<std::string>());
  } else if (expected.contains("raised")) {
    EXPECT_EQ(rendered.status().code(), absl::StatusCode::kInvalidArgument) << rendered.status();
    EXPECT_EQ(std::string(rendered.status().message()), expected["raised"].get<std::string>());
  } else {
    EXPECT_EQ(rendered.status().code(), absl::StatusCode::kFailedPrecondition) << rendered.status();
    EXPECT_THAT(std::string(rendered.status().message()), testing::StartsWith("line "));
  }
}

TEST(JinjaCases, SnippetsEqualPython) {
  const Json& snippets = test::cases()["snippets"];
  ASSERT_GT(snippets.size(), 120u);
  const Variables variables = test::plain_variables(test::cases()["variables"]);
  for (const Json& snippet : snippets) {
    const auto text = snippet["template"].get<std::string>();
    SCOPED_TRACE(text);
    const auto compiled = Template::parse(text);
    if (snippet.contains("refused")) {
      EXPECT_EQ(compiled.status().code(), absl::StatusCode::kInvalidArgument) << compiled.status();
      EXPECT_THAT(std::string(compiled.status().message()), testing::StartsWith("line 1, column "));
    } else {
      ASSERT_TRUE(compiled.ok()) << compiled.status();
      expect_as_python(snippet, *compiled, variables);
    }
  }
}

TEST(JinjaCases, ChatsEqualPython) {
  const Json& chats = test::cases()["chats"];
  ASSERT_GE(chats.size(), 12u);
  for (const Json& chat : chats) {
    SCOPED_TRACE(chat["name"].get<std::string>());
    const auto compiled = Template::parse(chat["template"].get<std::string>());
    ASSERT_TRUE(compiled.ok()) << compiled.status();
    for (const Json& expected : chat["cases"]) {
      SCOPED_TRACE(expected["variables"].dump());
      expect_as_python(expected, *compiled, test::chat_variables(expected["variables"]));
    }
  }
}

// What is said to come from message i stands in its content, and nothing else does that is longer than a word.
TEST(JinjaCases, ChatsKnowWhereTheirTextIsFrom) {
  for (const Json& chat : test::cases()["chats"]) {
    const auto name = chat["name"].get<std::string>();
    if (name == "macros") continue;  // writes contents with other line ends
    SCOPED_TRACE(name);
    const auto compiled = Template::parse(chat["template"].get<std::string>());
    for (const Json& expected : chat["cases"]) {
      if (!expected.contains("text")) continue;
      const Json& messages = expected["variables"]["messages"];
      const auto rendered = compiled->render(test::chat_variables(expected["variables"]), test::some_time());
      ASSERT_TRUE(rendered.ok());
      std::string all;
      for (const Piece& piece : rendered->pieces()) {
        all += piece.text;
        if (piece.source == kTemplate) {
          EXPECT_EQ(piece.text.find("Hello!"), std::string_view::npos);
          continue;
        }
        const Json& message = messages[static_cast<size_t>(piece.source)];
        const auto content = message["content"].get<std::string>();
        const bool within = content.find(piece.text) != std::string::npos || message["role"] == std::string(piece.text);
        EXPECT_TRUE(within) << piece.text << " is not of " << content;
      }
      EXPECT_EQ(all, rendered->bytes());
    }
  }
}

}  // namespace
}  // namespace pkv::jinja
