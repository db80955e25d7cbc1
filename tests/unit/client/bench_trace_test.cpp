// Traces: what lines may say, and that a wrong one is named by its number.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "client/bench/trace.h"

namespace pkv::client {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

std::vector<BenchPolicy> mix() {
  std::vector<BenchPolicy> policies;
  EXPECT_EQ(parse_mix("full,snapkv:128", policies), "");
  return policies;
}

TEST(Trace, ReadsLinesInTheOrderOfTheirTimes) {
  std::vector<BenchPolicy> policies = mix();
  std::vector<TraceLine> lines;
  EXPECT_EQ(parse_trace(R"({"at": 2.5, "prompt_tokens": 700, "max_tokens": 64, "policy": "snapkv:128"}

{"at": 0, "prompt": "tell me", "policy": "h2o:64:total"}
{"at": 2.5}
)",
                        lines, policies),
            "");
  ASSERT_EQ(lines.size(), 3);
  EXPECT_EQ(lines[0].prompt, "tell me");
  EXPECT_EQ(lines[0].policy, 2);
  ASSERT_EQ(policies.size(), 3);
  EXPECT_EQ(policies[2].text, "h2o:64:total");
  EXPECT_EQ(policies[2].policy.budget().tokens(), 64);
  EXPECT_EQ(lines[1].at, 2.5);
  EXPECT_EQ(lines[1].prompt_tokens, 700);
  EXPECT_EQ(lines[1].max_tokens, 64);
  EXPECT_EQ(lines[1].policy, 1);
  EXPECT_FALSE(lines[2].policy || lines[2].prompt || lines[2].prompt_tokens || lines[2].max_tokens);
}

TEST(Trace, NamesTheLineAndWhatIsWrong) {
  const auto error_of = [](const std::string& line) {
    std::vector<BenchPolicy> policies = mix();
    std::vector<TraceLine> lines;
    return parse_trace("{\"at\": 0}\n\n" + line + "\n{\"at\": 1}", lines, policies);
  };
  struct Case {
    const char* line;
    const char* says;
  };
  constexpr Case kCases[] = {
      {"nonsense", "no JSON object"},
      {"[1]", "no JSON object"},
      {R"({"at": 1)", "no JSON object"},
      {R"({"prompt_tokens": 5})", "no \"at\""},
      {R"({"at": -1})", "\"at\" is not"},
      {R"({"at": "1"})", "\"at\" is not"},
      {R"({"at": 1, "prompt_tokens": 0})", "\"prompt_tokens\" is not"},
      {R"({"at": 1, "prompt_tokens": 1.5})", "\"prompt_tokens\" is not"},
      {R"({"at": 1, "max_tokens": 1e12})", "\"max_tokens\" is not"},
      {R"({"at": 1, "prompt": ""})", "\"prompt\" is no text"},
      {R"({"at": 1, "prompt": "a", "prompt_tokens": 5})", "exclude each other"},
      {R"({"at": 1, "policy": 5})", "\"policy\" is no string"},
      {R"({"at": 1, "policy": "snapkv:lots"})", "'snapkv:lots'"},
      {R"({"at": 1, "policy": "full,snapkv"})", "one policy"},
      {R"({"at": 1, "prompt_token": 5})", "unknown key \"prompt_token\""},
  };
  for (const Case& wrong : kCases) {
    EXPECT_THAT(error_of(wrong.line), StartsWith("line 3: ")) << wrong.line;
    EXPECT_THAT(error_of(wrong.line), HasSubstr(wrong.says)) << wrong.line;
  }
  EXPECT_THAT(error_of(R"({"at": 1, "policy": "snapkv:lots"})"), testing::Not(HasSubstr("--policies")));
}

TEST(Trace, AnEmptyOneIsRefused) {
  std::vector<BenchPolicy> policies = mix();
  std::vector<TraceLine> lines;
  EXPECT_EQ(parse_trace("\n \n", lines, policies), "no request in it");
}

TEST(Trace, AtMostSoManyPolicies) {
  std::vector<BenchPolicy> policies = mix();
  std::vector<TraceLine> lines;
  std::string text;
  for (int i = 1; i < 100; ++i) text += "{\"at\": 1, \"policy\": \"h2o:" + std::to_string(i) + "\"}\n";
  EXPECT_THAT(parse_trace(text, lines, policies), StartsWith("line 63: more than 64"));
}

}  // namespace
}  // namespace pkv::client
