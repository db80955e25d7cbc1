// The data in the page of kept positions: run lengths, strings that cannot leave their place, the answer without its
// prompt.
#include "client/inspect_page.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace pkv::client {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

std::vector<uint32_t> runs(std::initializer_list<uint32_t> positions) {
  google::protobuf::RepeatedField<uint32_t> field(positions.begin(), positions.end());
  return run_lengths(field);
}

TEST(RunLengths, GapsAndKeptInTurn) {
  EXPECT_THAT(runs({}), IsEmpty());
  EXPECT_THAT(runs({0}), ElementsAre(0, 1));
  EXPECT_THAT(runs({0, 1, 2, 3}), ElementsAre(0, 4));
  EXPECT_THAT(runs({5}), ElementsAre(5, 1));
  EXPECT_THAT(runs({0, 1, 7, 8, 9, 11}), ElementsAre(0, 2, 5, 3, 1, 1));
  EXPECT_THAT(runs({4294967295u}), ElementsAre(4294967295u, 1));
  EXPECT_THAT(runs({3, 3, 1, 4}), ElementsAre(3, 2));
}

TEST(JsonString, QuotesWhatJsonAndHtmlCouldMisread) {
  EXPECT_EQ(json_string("plain"), "\"plain\"");
  EXPECT_EQ(json_string("</script>&'"), "\"\\u003c/script\\u003e\\u0026\\u0027\"");
  EXPECT_EQ(json_string("a\"b\\c"), "\"a\\\"b\\\\c\"");
  EXPECT_EQ(json_string("\n\t\x7F"), "\"\\u000a\\u0009\\u007f\"");
  EXPECT_EQ(json_string(std::string("\0", 1)), "\"\\u0000\"");
  EXPECT_EQ(json_string("\xE2\x80\xA8\xE2\x80\xA9"), "\"\\u2028\\u2029\"");
  EXPECT_EQ(json_string("\xC3\xA9 \xE4\xBD\xA0 \xF0\x9F\x8D\x8B"), "\"\xC3\xA9 \xE4\xBD\xA0 \xF0\x9F\x8D\x8B\"");
}

TEST(JsonString, ReplacesBytesThatAreNoUtf8) {
  EXPECT_EQ(json_string("a\xFFz"), "\"a\\ufffdz\"");
  EXPECT_EQ(json_string("\xC3"), "\"\\ufffd\"");                                   // cut short
  EXPECT_EQ(json_string("\xC0\xBC"), "\"\\ufffd\\ufffd\"");                        // an overlong '<'
  EXPECT_EQ(json_string("\xE0\x80\xBC"), "\"\\ufffd\\ufffd\\ufffd\"");             // another
  EXPECT_EQ(json_string("\xED\xA0\x80"), "\"\\ufffd\\ufffd\\ufffd\"");             // a surrogate
  EXPECT_EQ(json_string("\xF4\x90\x80\x80"), "\"\\ufffd\\ufffd\\ufffd\\ufffd\"");  // beyond U+10FFFF
}

// Two layers; the reply repeats its prompt of two tokens.
v1::GenerateResponse echoed() {
  v1::GenerateResponse reply;
  reply.mutable_usage()->set_prompt_tokens(2);
  reply.mutable_usage()->set_completion_tokens(1);
  reply.set_model("small");
  auto& choice = *reply.add_choices();
  choice.set_text("<s>hi there");
  for (const char* token : {"<s>", "hi", " there"}) choice.add_logprobs()->set_token(token);
  auto& cache = *reply.mutable_cache();
  cache.set_logical_tokens(3);
  cache.set_allocated_bytes(2048);
  cache.set_auxiliary_bytes(1024);
  cache.set_peak_bytes(4096);
  cache.mutable_recall()->set_mean(0.75);
  cache.mutable_effective_policy()->mutable_snapkv()->set_window_tokens(1);
  for (uint32_t l : {0, 1}) {
    auto& layer = *cache.add_layers();
    layer.set_layer(l);
    layer.set_budget_tokens(2 - l);
    layer.set_kept_min(2 - l);
    layer.set_kept_mean(2 - l);
    layer.set_kept_max(2 - l);
    auto& head = *layer.add_heads();
    head.set_kv_head(0);
    for (uint32_t p = l; p < 2; ++p) head.add_positions(p);
  }
  cache.mutable_layers(0)->mutable_recall()->set_mean(1);
  cache.mutable_layers(0)->mutable_recall()->set_min(0.5);
  return reply;
}

TEST(InspectData, LayersHeadsAndTokens) {
  const v1::GenerateResponse reply = echoed();
  const std::string data =
      inspect_data({.question = "why?", .tokens = echoed_token_texts(reply), .views = {{"snapkv 2", reply}}});
  EXPECT_THAT(
      data,
      HasSubstr("{\"model\":\"small\",\"question\":\"why?\",\"tokens\":[\"\\u003cs\\u003e\",\"hi\"],\"views\":["));
  EXPECT_THAT(data, HasSubstr("{\"title\":\"snapkv 2\",\"policy\":\"snapkv, window_tokens=1\",\"answer\":\" there\","));
  EXPECT_THAT(data, HasSubstr("\"promptTokens\":2,\"totalTokens\":3,"));
  EXPECT_THAT(data, HasSubstr("\"memory\":\"3.0 KiB\",\"peak\":\"4.0 KiB\",\"recall\":0.750000,"));
  EXPECT_THAT(
      data,
      HasSubstr(
          "\"layers\":[{\"layer\":0,\"budget\":2,\"min\":2,\"mean\":2.00,\"max\":2,\"recall\":1.000000,\"recallMin\":0."
          "500000,"
          "\"heads\":[{\"head\":0,\"runs\":[0,2]}]},"
          "{\"layer\":1,\"budget\":1,\"min\":1,\"mean\":1.00,\"max\":1,\"heads\":[{\"head\":0,\"runs\":[1,1]}]}]"));
}

TEST(InspectData, FinalPositionsWhereTheReplyHasThem) {
  v1::GenerateResponse reply = echoed();
  EXPECT_THAT(inspect_data({.views = {{"", reply}}}), Not(HasSubstr("final")));
  for (uint32_t position : {0, 2})
    reply.mutable_cache()->mutable_layers(0)->mutable_heads(0)->add_final_positions(position);
  EXPECT_THAT(inspect_data({.views = {{"", reply}}}), HasSubstr("\"runs\":[0,2],\"final\":[0,1,1,1]}"));
}

TEST(InspectData, LogprobsOfTheAnswerAloneAreNoPrompt) {
  v1::GenerateResponse reply = echoed();
  reply.mutable_choices(0)->mutable_logprobs()->DeleteSubrange(0, 2);
  reply.mutable_choices(0)->set_text(" there");
  EXPECT_THAT(echoed_token_texts(reply), IsEmpty());
  EXPECT_EQ(answer_text(reply), " there");
  EXPECT_EQ(answer_text({}), "");
}

TEST(InspectData, AViewForEveryReplyOfOnePrompt) {
  v1::GenerateResponse other = echoed();
  other.mutable_cache()->mutable_effective_policy()->mutable_tova();
  const std::string data = inspect_data({.views = {{"one", echoed()}, {"two", other}}});
  EXPECT_THAT(data, HasSubstr("{\"title\":\"one\",\"policy\":\"snapkv, window_tokens=1\""));
  EXPECT_THAT(data, HasSubstr("{\"title\":\"two\",\"policy\":\"tova\""));
  EXPECT_THAT(data, Not(HasSubstr("\"tokens\"")));
}

TEST(EchoedTokenTexts, PutCharactersOfSeveralTokensTogether) {
  v1::GenerateResponse reply = echoed();
  reply.mutable_choices(0)->mutable_logprobs(0)->set_token("\xC3");
  reply.mutable_choices(0)->mutable_logprobs(1)->set_token("\xA9");
  EXPECT_THAT(echoed_token_texts(reply), ElementsAre("\xC3\xA9", ""));
}

TEST(InspectData, SaysWhyNothingWasCompressed) {
  v1::GenerateResponse reply = echoed();
  reply.mutable_cache()->set_not_compressed_reason("short");
  EXPECT_THAT(inspect_data({.views = {{"", reply}}}), HasSubstr("\"notCompressed\":\"short\""));
  reply.mutable_cache()->set_compressed(true);
  EXPECT_THAT(inspect_data({.views = {{"", reply}}}), HasSubstr("\"notCompressed\":\"\""));
}

TEST(InspectPage, HoldsTheDataOnceAndNothingFromOutside) {
  v1::GenerateResponse reply = echoed();
  reply.mutable_choices(0)->set_text("</script>@DATA@");
  const std::string page = inspect_page({.views = {{"", reply}}});
  const std::string data = inspect_data({.views = {{"", reply}}});
  const size_t at = page.find(data);
  ASSERT_NE(at, std::string::npos);
  const std::string around = page.substr(0, at) + page.substr(at + data.size());
  EXPECT_THAT(around, Not(HasSubstr("@DATA@")));
  EXPECT_THAT(data, Not(HasSubstr("<")));
  for (const char* loading : {"src=", "href=", "@import", "url("})
    EXPECT_THAT(around, Not(HasSubstr(loading))) << loading;
  EXPECT_THAT(around, HasSubstr("default-src 'none'"));
}

TEST(HasPositions, NeedsHeadsInALayer) {
  EXPECT_FALSE(has_positions({}));
  EXPECT_TRUE(has_positions(echoed()));
  v1::GenerateResponse reply;
  reply.mutable_cache()->add_layers();
  EXPECT_FALSE(has_positions(reply));
}

}  // namespace
}  // namespace pkv::client
