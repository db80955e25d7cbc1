// Answers beside each other, and the sentence that a comparison comes to.
#include "client/compare_sides.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace pkv::client {
namespace {

using testing::HasSubstr;
using testing::Not;

v1::CompareResponse answers(const std::string& base) {
  v1::CompareResponse reply;
  reply.mutable_baseline()->add_choices()->set_text(base);
  reply.mutable_baseline()->mutable_cache()->set_policy_name("full");
  reply.mutable_baseline()->mutable_cache()->set_allocated_bytes(1000);
  return reply;
}

void add(v1::CompareResponse& reply, const std::string& text, int divergence, uint64_t bytes = 51) {
  auto& comparison = *reply.add_comparisons();
  comparison.set_text(text);
  comparison.set_first_divergence(divergence);
  comparison.mutable_cache()->set_allocated_bytes(bytes - 1);
  comparison.mutable_cache()->set_auxiliary_bytes(1);
}

const std::vector<std::string> kNames{"full", "a", "b", "c"};

TEST(CommonPrefix, EndsAtAWholeCharacter) {
  EXPECT_EQ(common_prefix("", "x"), 0u);
  EXPECT_EQ(common_prefix("abc", "abd"), 2u);
  EXPECT_EQ(common_prefix("abc", "abc"), 3u);
  EXPECT_EQ(common_prefix("abc", "abcd"), 3u);
  EXPECT_EQ(common_prefix("x\xC3\xA9", "x\xC3\xA8"), 1u);
}

TEST(CompareSides, TwoColumnsWithTheMarkWhereTheyPart) {
  v1::CompareResponse reply = answers("The cat sat on the mat.\nDone.");
  add(reply, "The cat sat on a chair.", 5);
  EXPECT_EQ(compare_sides(reply, kNames, 65, 600),
            "full:\n"
            "  The cat sat on the mat.\n"
            "  Done.\n"
            "\n"
            "a departs at token 5:\n"
            "  full                           | a\n"
            "  The cat sat on >>the mat.      | The cat sat on >>a chair.\n"
            "  Done.                          |\n");
}

TEST(CompareSides, WhatIsAlikeIsOnlyNamed) {
  v1::CompareResponse reply = answers("One.");
  add(reply, "One.", -1);
  add(reply, "One.", -1);
  EXPECT_EQ(compare_sides(reply, kNames, 80, 600), "full and, alike, a, b:\n  One.\n");
}

TEST(CompareSides, ANarrowTerminalHasThemOneBelowTheOther) {
  v1::CompareResponse reply = answers("The cat sat.");
  add(reply, "The dog sat.", 1);
  EXPECT_THAT(compare_sides(reply, kNames, 40, 600),
              HasSubstr("  full:\n    The >>cat sat.\n  a:\n    The >>dog sat.\n"));
}

TEST(CompareSides, ALongBeginningIsCountedAndLeftOut) {
  const std::string alike =
      "word " + std::string(300, 'x') + " and then some twenty further words until the answers part at ";
  v1::CompareResponse reply = answers(alike + "last");
  add(reply, alike + "first", 70);
  const std::string text = compare_sides(reply, kNames, 100, 600);
  const std::string differences = text.substr(text.find("\n\n"));
  EXPECT_THAT(differences, HasSubstr(" characters alike left out)"));
  EXPECT_THAT(differences, Not(HasSubstr("xxx")));
  EXPECT_THAT(differences, HasSubstr(">>first"));
}

TEST(CompareSides, NoLineIsWiderThanTheTerminal) {
  v1::CompareResponse reply = answers(std::string(200, 'y') + " \xE6\x97\xA5\xE6\x9C\xAC \x1b[2J\xE2\x80\xAE");
  add(reply, std::string(150, 'y') + "\tz", 9);
  for (const size_t width : {30, 61, 80, 133}) {
    const std::string text = compare_sides(reply, kNames, width, 600);
    EXPECT_THAT(text, Not(HasSubstr("\x1b")));
    EXPECT_THAT(text, Not(HasSubstr("\xE2\x80\xAE")));
    size_t begin = text.find("  full");
    for (size_t end = 0; (end = text.find('\n', begin)) != std::string::npos; begin = end + 1)
      EXPECT_LE(end - begin, width + 8) << width;  // bytes: two wide characters have four more than columns
  }
}

TEST(CompareSides, ClipsLongAnswersAndNamesAnEndedOne) {
  v1::CompareResponse reply = answers("ab" + std::string(50, 'z'));
  add(reply, "ab", 1);
  const std::string text = compare_sides(reply, kNames, 100, 10);
  EXPECT_THAT(text, HasSubstr("ab>>zzzzzzzzzz ... (40 more)"));
  EXPECT_THAT(text, HasSubstr("| ab>>(ends)"));
  EXPECT_THAT(text, HasSubstr("(42 more; --json has all)"));
}

TEST(CompareSides, ReplyWithoutChoices) { EXPECT_EQ(compare_sides({}, {"full"}, 80, 10), "full:\n  \n"); }

TEST(CompareVerdict, TheSameAnswerWithLessMemoryAndWhoDeparts) {
  v1::CompareResponse reply = answers("x");
  add(reply, "x", -1, 100);
  add(reply, "x", -1, 51);
  add(reply, "y", 3, 24);
  EXPECT_EQ(compare_verdict(reply, kNames),
            "b gives full's answer with 5.1 % of its memory, so does a with 10.0 %; c departs at token 3 (2.4 %).");
}

TEST(CompareVerdict, NobodyGivesIt) {
  v1::CompareResponse reply = answers("x");
  add(reply, "y", 3, 24);
  EXPECT_EQ(compare_verdict(reply, kNames),
            "a does not give full's answer: it departs at token 3, with 2.4 % of its memory.");
  add(reply, "y", 12, 200);
  add(reply, "y", 12, 100);
  EXPECT_EQ(
      compare_verdict(reply, kNames),
      "None gives full's answer: c follows it longest, to token 12, with 10.0 % of its memory; b departs at token 12 "
      "(20.0 %), a departs at token 3 (2.4 %).");
}

TEST(CompareVerdict, NothingToSayOfNothing) { EXPECT_EQ(compare_verdict({}, {}), ""); }

}  // namespace
}  // namespace pkv::client
