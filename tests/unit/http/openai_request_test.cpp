// Bodies of OpenAI's API as messages, and bodies that are none.
#include "server/http/openai_request.h"

#include <gmock/gmock.h>

#include "server/http/json_text.h"
#include "server/http/openai_error.h"
#include "server/status/field_error.h"

namespace pkv {
namespace {

namespace pb = ::pyramidkv::v1;

pb::GenerateRequest completion(const std::string& fields) {
  const auto request = read_openai_request(R"({"prompt": "x")" + fields + "}", OpenAiEndpoint::kCompletions);
  EXPECT_TRUE(request.ok()) << request.status();
  return request.ok() ? request->message : pb::GenerateRequest();
}

std::string refused_field(const std::string& body, OpenAiEndpoint endpoint = OpenAiEndpoint::kCompletions) {
  const auto request = read_openai_request(body, endpoint);
  EXPECT_FALSE(request.ok()) << body;
  const auto named = field_error_of(request.status());
  return named ? named->field : "";
}

TEST(OpenAiRequest, FieldsGoWhereTheContractHasThem) {
  const pb::GenerateRequest message = completion(
      R"(, "model": "m", "temperature": 1, "top_p": 0.5, "seed": -1, "stop": ["a", "b"], "logit_bias": {"7": -1.5}, "max_tokens": 9,
         "priority": -4, "logprobs": 0, "cache_policy": {"h2o": {"recentTokens": 4}, "budget": {"keep_ratio": 0.5}}, "cache_report": "per_layer")");
  EXPECT_EQ(message.model(), "m");
  EXPECT_EQ(message.sampling().temperature(), 1.0F);
  EXPECT_EQ(message.sampling().seed(), ~uint64_t{0});
  EXPECT_EQ(message.sampling().stop_size(), 2);
  EXPECT_EQ(message.sampling().logit_bias().at(7), -1.5F);
  EXPECT_EQ(message.sampling().max_tokens(), 9u);
  EXPECT_EQ(message.priority(), -4);
  EXPECT_TRUE(message.output().logprobs());
  EXPECT_EQ(message.output().top_logprobs(), 0u);
  EXPECT_EQ(message.cache_policy().h2o().recent_tokens(), 4u);
  EXPECT_EQ(message.cache_policy().budget().keep_ratio(), 0.5);
  EXPECT_EQ(message.cache_report(), pb::CACHE_REPORT_DETAIL_PER_LAYER);
}

TEST(OpenAiRequest, NullIsNotGiven) {
  const pb::GenerateRequest message =
      completion(R"(, "temperature": null, "stop": null, "tools": null, "unknown": null)");
  EXPECT_FALSE(message.sampling().has_temperature());
}

TEST(OpenAiRequest, ValuesOfTheWrongKindNameTheirField) {
  for (const auto& [fields, field] : std::vector<std::pair<std::string, std::string>>{
           {R"("max_tokens": -1)", "max_tokens"},
           {R"("max_tokens": 1.5)", "max_tokens"},
           {R"("max_tokens": 4294967296)", "max_tokens"},
           {R"("max_tokens": 1, "max_completion_tokens": 2)", "max_tokens"},
           {R"("priority": 2147483648)", "priority"},
           {R"("priority": 18446744073709551615)", "priority"},
           {R"("priority": "high")", "priority"},
           {R"("seed": 1e3)", "seed"},
           {R"("stream": 1)", "stream"},
           {R"("stream_options": {"include": true})", "stream_options"},
           {R"("stop": [1])", "stop"},
           {R"("logit_bias": {"a": 1})", "logit_bias"},
           {R"("logit_bias": {"1": "a"})", "logit_bias[1]"},
           {R"("cache_policy": "full")", "cache_policy"},
           {R"("cache_report": "some")", "cache_report"},
           {R"("prompt": 5)", "prompt"},
           {R"("prompt": [1, "a"])", "prompt"}}) {
    EXPECT_EQ(refused_field("{" + fields + "}"), field) << fields;
  }
}

// It could be a secret, and the field of an error is logged.
TEST(OpenAiRequest, NamesOfTheCallersOwnAreNoFields) {
  const std::string name(1000, 'n');
  for (const auto& [body, field] : std::vector<std::pair<std::string, std::string>>{
           {"{\"" + name + "\": 1}", ""},
           {R"({"stream_options": {")" + name + "\": 1}}", "stream_options"},
           {R"({"messages": [{"role": "user", "content": "a", ")" + name + "\": 1}]}", "messages[0]"}}) {
    const auto request = read_openai_request(body, OpenAiEndpoint::kChat);
    EXPECT_EQ(request.status().code(), absl::StatusCode::kUnimplemented);
    const auto named = field_error_of(request.status());
    EXPECT_EQ(named ? named->field : "", field);
    EXPECT_THAT(std::string(request.status().message()),
                AllOf(::testing::HasSubstr("\"nnn"), ::testing::Not(::testing::HasSubstr(name))));
  }
}

TEST(OpenAiRequest, NamesOfTheCallersOwnAreAnsweredAsParam) {
  for (const auto& [body, param] : std::vector<std::pair<std::string, std::string>>{
           {R"({"my_field": 1})", "my_field"},
           {R"({"stream_options": {"my_field": 1}})", "stream_options.my_field"},
           {R"({"messages": [{"role": "user", "content": "a", "my_field": 1}]})", "messages[0].my_field"}}) {
    const auto request = read_openai_request(body, OpenAiEndpoint::kChat);
    EXPECT_EQ(Json::parse(openai_error(request.status()).body)["error"]["param"], param);
    EXPECT_EQ(Json::parse(openai_error_event(request.status()).substr(6))["error"]["param"], param);
  }
}

TEST(OpenAiRequest, ValuesThatAskForNothingArePassedOver) {
  EXPECT_EQ(completion(R"(, "verbosity": "medium", "reasoning_effort": null, "suffix": "", "tools": [])").prompt(),
            "x");
  EXPECT_EQ(refused_field(R"({"verbosity": "low"})"), "verbosity");
  EXPECT_EQ(refused_field(R"({"reasoning_effort": "medium"})"), "reasoning_effort");
}

TEST(OpenAiRequest, BodiesAreBounded) {
  EXPECT_FALSE(parse_json(std::string(65, '[') + std::string(65, ']')).ok());
  EXPECT_TRUE(parse_json(std::string(64, '[') + std::string(64, ']')).ok());
  EXPECT_TRUE(parse_json("\"" + std::string(100, '[') + "\"").ok());  // a text
  std::string many = "[0";
  for (int i = 0; i < 1 << 20; ++i) many += ",0";
  EXPECT_FALSE(parse_json(many + "]").ok());
  for (const char* text : {"", "{", "{} x", "\"\xff\"", "nul", "[1,]", "\"\\", "1e999", "[-1e999]"})
    EXPECT_FALSE(parse_json(text).ok()) << text;
}

TEST(OpenAiRequest, ReadsMessages) {
  const auto request = read_openai_request(
      R"({"messages": [{"role": "developer", "content": "be kind"}, {"role": "user", "content": [{"type": "text", "text": "a"},
          {"type": "text", "text": "b"}]}], "stream": true, "stream_options": {"include_usage": true}})",
      OpenAiEndpoint::kChat);
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_TRUE(request->answer.stream && request->answer.include_usage);
  EXPECT_EQ(request->message.chat().messages(0).role(), "system");
  EXPECT_EQ(request->message.chat().messages(1).content(), "ab");
  const auto refused = [](const std::string& message) {
    return refused_field(R"({"messages": [)" + message + "]}", OpenAiEndpoint::kChat);
  };
  EXPECT_EQ(refused(R"({"role": "user"})"), "messages[0].content");
  EXPECT_EQ(refused(R"({"role": "user", "content": [{"type": "image_url"}]})"), "messages[0].content[0].type");
  EXPECT_EQ(refused(R"({"role": "user", "content": [{"type": "text"}]})"), "messages[0].content[0].text");
  EXPECT_EQ(refused("5"), "messages[0]");
}

TEST(OpenAiRequest, ReadsAnswersThatComeBackInAChat) {
  const std::string empty =
      R"("name": "b", "refusal": null, "annotations": [], "tool_calls": [], "audio": null, "function_call": null)";
  const auto request = read_openai_request(R"({"messages": [{"role": "assistant", "content": "a", )" + empty +
                                               R"(}, {"role": "assistant", "content": "", "refusal": ""}]})",
                                           OpenAiEndpoint::kChat);
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->message.chat().messages(0).content(), "a");
  const auto refused = [](const std::string& message) {
    return refused_field(R"({"messages": [)" + message + "]}", OpenAiEndpoint::kChat);
  };
  EXPECT_EQ(refused(R"({"role": "assistant", "content": null, "tool_calls": [{"id": "1"}]})"),
            "messages[0].tool_calls");
  EXPECT_EQ(refused(R"({"role": "assistant", "content": null, "refusal": "no"})"), "messages[0].refusal");
  EXPECT_EQ(refused(R"({"role": "tool", "tool_call_id": "1", "content": "a"})"), "messages[0].role");
  EXPECT_EQ(refused(R"({"role": "assistant", "tool_calls": []})"), "messages[0].content");
}

}  // namespace
}  // namespace pkv
