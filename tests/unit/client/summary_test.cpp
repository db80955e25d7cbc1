// The line below an answer, and the hints about answers that surprise.
#include "client/summary.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace pkv::client {
namespace {

using testing::HasSubstr;

v1::GenerateResponse reply(const std::string& text, uint32_t tokens) {
  v1::GenerateResponse result;
  auto& choice = *result.add_choices();
  choice.set_text(text);
  choice.set_finish_reason(v1::FINISH_REASON_STOP);
  choice.set_matched_stop("<|im_end|>");
  result.mutable_usage()->set_completion_tokens(tokens);
  result.mutable_timings()->mutable_time_to_first_token()->set_nanos(250000000);
  result.mutable_timings()->mutable_decode()->set_seconds(2);
  return result;
}

TEST(AnswerSummary, KeptSavedRecallAndSpeed) {
  v1::GenerateResponse answer = reply("yes", 21);
  auto& cache = *answer.mutable_cache();
  cache.set_policy_name("pyramidkv");
  cache.set_budget_tokens(256);
  cache.set_compressed(true);
  cache.set_logical_tokens(1000);
  cache.set_full_bytes(16 << 20);
  cache.set_held_bytes(2 << 20);
  cache.set_saved_bytes(12 << 20);
  cache.mutable_recall()->set_mean(0.972);
  EXPECT_EQ(
      answer_summary(answer),
      "pyramidkv 256: kept 2.00 MiB of 16.00 MiB, saved 75.0 %; recall 97.2 %; first token 0.25 s, then 10.0 tok/s");
  cache.set_compressed(false);
  cache.set_saved_bytes(-5);
  EXPECT_EQ(answer_summary(answer), "pyramidkv: kept all 2.00 MiB, nothing saved; first token 0.25 s, then 10.0 tok/s");
}

TEST(AnswerSummary, WithoutAReportOnlyTheSpeed) {
  EXPECT_EQ(answer_summary(reply("yes", 1)), "first token 0.25 s");
  EXPECT_EQ(answer_summary(reply("", 0)), "prompt scored");
}

TEST(AnswerHint, WhyAnAnswerIsEmpty) {
  EXPECT_EQ(answer_hint(reply("yes", 2), true, true), "");
  EXPECT_THAT(answer_hint(reply("", 1), true, true), HasSubstr("\"<|im_end|>\", ended it; without --raw"));
  EXPECT_THAT(answer_hint(reply(" \n", 3), true, false),
              HasSubstr("before any text came; the model has no chat format"));
  EXPECT_THAT(answer_hint(reply("", 1), false, true), HasSubstr("--min-tokens"));
  v1::GenerateResponse cut = reply("and so", 256);
  cut.mutable_choices(0)->set_finish_reason(v1::FINISH_REASON_LENGTH);
  EXPECT_THAT(answer_hint(cut, false, true), HasSubstr("cut off after 256 tokens; --max-tokens (-n)"));
  EXPECT_EQ(answer_hint(reply("", 0), true, true), "");
}

TEST(TokenTable, IdsAloneOrWithTheirProbabilities) {
  v1::Choice choice;
  choice.add_token_ids(5);
  choice.add_token_ids(77);
  EXPECT_EQ(token_table(choice, false), "token ids: 5 77\n");
  auto& token = *choice.add_logprobs();
  token.set_token_id(5);
  token.set_token(" a\n");
  token.set_logprob(-0.693147f);
  auto& other = *token.add_top();
  other.set_token_id(9);
  other.set_token("\xe2\x82");
  const std::string table = token_table(choice, true);
  EXPECT_THAT(table, HasSubstr("       5  \" a\\n\"               -0.6931   50.0 %\n"));
  EXPECT_THAT(table, HasSubstr("           9  \"\\xe2\\x82\" "));
}

}  // namespace
}  // namespace pkv::client
