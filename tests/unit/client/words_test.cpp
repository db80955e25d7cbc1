// Mistyped commands and options, and where UTF-8 ends.
#include "client/words.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "client/utf8.h"

namespace pkv::client {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

const std::vector<std::string> kNames = {"generate", "chat", "stats", "policies", "models", "report", "estimate"};

TEST(ClosestWord, FewMistakesOrABeginning) {
  const std::pair<const char*, const char*> kCases[] = {{"generat", "generate"},
                                                        {"genrate", "generate"},
                                                        {"gen", "generate"},
                                                        {"chta", "chat"},
                                                        {"stat", "stats"},
                                                        {"polices", "policies"},
                                                        {"model", "models"},
                                                        {"estiamte", "estimate"},
                                                        {"xyz", ""},
                                                        {"", ""},
                                                        {"--", ""},
                                                        {"completely", ""},
                                                        {"generate", "generate"}};
  for (const auto& [word, closest] : kCases) EXPECT_EQ(closest_word(word, kNames), closest) << word;
  EXPECT_EQ(closest_word("--temprature", {"--temperature", "--top-p", "--seed"}), "--temperature");
  EXPECT_EQ(closest_word("--t", {"-n", "-p", "-f"}), "");
}

class ExplainCommandLine : public testing::Test {
 protected:
  static std::string explain(const std::vector<std::string>& words) {
    const KnownCommand global{.name = "pyramidkv", .options = {"--server", "--help"}, .values = {"--server"}};
    return explain_command_line(
        words, global,
        {{.name = "generate", .options = {"--budget", "--json", "-n"}, .values = {"--budget", "-n"}},
         {.name = "chat"}});
  }
};

TEST_F(ExplainCommandLine, AnUnknownCommand) {
  EXPECT_THAT(explain({"generat", "x"}), StartsWith("there is no command 'generat'; did you mean 'generate'?\n"));
  EXPECT_THAT(explain({"--server", "chat", "talk"}),
              StartsWith("there is no command 'talk'\nCommands: generate, chat"));
  EXPECT_THAT(explain({}), StartsWith("which command? generate, chat"));
  EXPECT_THAT(explain({"--sever", "h:1"}), StartsWith("there is no command 'h:1'"));
  EXPECT_THAT(explain({"--sever=h:1"}),
              StartsWith("there is no option --sever before the command; did you mean '--server'?"));
}

TEST_F(ExplainCommandLine, AnUnknownOption) {
  EXPECT_THAT(explain({"generate", "--budgte", "128", "x"}),
              StartsWith("'generate' has no option --budgte; did you mean '--budget'?"));
  EXPECT_THAT(explain({"generate", "--frobnicate=3"}), StartsWith("'generate' has no option --frobnicate\n"));
  EXPECT_THAT(explain({"chat", "--serve", "h:1"}), HasSubstr("'--server'"));
}

TEST_F(ExplainCommandLine, LeavesOtherMistakesToTheReader) {
  EXPECT_EQ(explain({"generate", "--budget", "--json-like value", "x"}), "");
  EXPECT_EQ(explain({"generate", "-n", "-5", "x"}), "");
  EXPECT_EQ(explain({"generate", "-n5", "--budget=4M", "x", "y"}), "");
  EXPECT_EQ(explain({"generate", "--", "--no-option"}), "");
}

TEST(CompleteHelp, IsTheOption) {
  const auto completed = [](std::vector<std::string> words) {
    complete_help(words, kNames);
    return words;
  };
  EXPECT_THAT(completed({"help"}), ElementsAre("--help"));
  EXPECT_THAT(completed({"help", "stats"}), ElementsAre("stats", "--help"));
  EXPECT_THAT(completed({"help", "stat"}), ElementsAre("stat"));
  EXPECT_THAT(completed({"generate", "help"}), ElementsAre("generate", "help"));
}

TEST(CompleteReportOption, AloneItMeansTheSummary) {
  const auto completed = [](std::vector<std::string> words) {
    complete_report_option(words);
    return words;
  };
  EXPECT_THAT(completed({"generate", "--report", "the prompt"}),
              ElementsAre("generate", "--report=summary", "the prompt"));
  EXPECT_THAT(completed({"generate", "x", "--report"}), ElementsAre("generate", "x", "--report=summary"));
  EXPECT_THAT(completed({"--report", "layers", "x"}), ElementsAre("--report", "layers", "x"));
  EXPECT_THAT(completed({"--report", "layer", "x"}), ElementsAre("--report", "layer", "x"));
  EXPECT_THAT(completed({"--", "--report"}), ElementsAre("--", "--report"));
}

TEST(FirstInvalidUtf8, NamesTheByte) {
  for (const char* good : {"", "plain", "caf\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x98\x80"})
    EXPECT_EQ(first_invalid_utf8(good), std::string::npos) << good;
  EXPECT_EQ(first_invalid_utf8("ab\xff"), 2u);
  EXPECT_EQ(first_invalid_utf8("caf\xc3"), 3u);
  EXPECT_EQ(first_invalid_utf8("\xed\xa0\x80"), 0u);
  EXPECT_EQ(first_invalid_utf8("x\xc0\x80"), 1u);
}

TEST(ForTerminal, TakesControlCharactersOut) { EXPECT_EQ(for_terminal("a\x1b[31mb\r\tc\n"), "a [31mb \tc\n"); }

}  // namespace
}  // namespace pkv::client
