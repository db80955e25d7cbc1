// Answers in the form of OpenAI's API, of results that the test sets.
#include "server/http/openai_reply.h"

#include <gmock/gmock.h>

#include <limits>
#include <string>

#include "tests/unit/api/api_fixture.h"

namespace pkv {
namespace {

using ::testing::HasSubstr;

class OpenAiReplyTest : public ApiTest {
 protected:
  OpenAiReply make_reply(const OpenAiAnswer& answer) const {
    return {answer, {.request_id = "r", .model = "m", .logprobs = true}, *tokenizer_};
  }
  static TokenId byte(unsigned char value) { return test::kTinyFirstByte + value; }
};

TEST_F(OpenAiReplyTest, ListsByNameHoldEveryTokenOnceAndTheSampledOne) {
  const OutputAssembler::Piece piece{
      .logprobs = {{.id = byte('a'), .logprob = -9, .top = {{byte(0xe4), -1.0F}, {byte(0xe5), -2.0F}}},
                   {.id = byte(0xe4), .logprob = -1, .top = {{byte(0xe4), -1.0F}}},
                   {.id = byte('b'), .logprob = -3}}};
  const std::string event = make_reply({}).next(piece);
  const Json json = Json::parse(event.substr(std::string("data: ").size()));
  const Json& listed = json["choices"][0]["logprobs"];
  EXPECT_EQ(listed["tokens"], Json({"a", "bytes:\\xe4", "b"}));
  EXPECT_EQ(listed["top_logprobs"][0], Json({{"a", -9}, {"bytes:\\xe4", -1}, {"bytes:\\xe5", -2}}));
  EXPECT_EQ(listed["top_logprobs"][1], Json({{"bytes:\\xe4", -1}}));
  EXPECT_EQ(listed["top_logprobs"][2], nullptr);
}

TEST_F(OpenAiReplyTest, SeedsComeBackAsTheyWereGiven) {
  Request request;
  request.sampling.seed = std::numeric_limits<uint64_t>::max();
  const RequestResult result;
  const std::string no_stop;
  const AnswerEnding ending{
      .result = result, .request = request, .report = ReportDetail::kNone, .matched_stop = no_stop};
  for (const auto& [negative, seed] : {std::pair{true, "\"seed\":-1,"}, {false, "\"seed\":18446744073709551615,"}}) {
    OpenAiReply reply = make_reply({.negative_seed = negative});
    EXPECT_THAT(reply.whole({}, ending), HasSubstr(seed));
    EXPECT_THAT(reply.last(ending), HasSubstr(seed));
  }
}

}  // namespace
}  // namespace pkv
