// The log of the real program: a line for every call, numbers as numbers, and nothing that breaks JSON.
#include <gmock/gmock.h>

#include <map>
#include <sstream>

#include "tests/integration/program.h"
#include "tests/support/http_client.h"

namespace pkv {
namespace {

using ::testing::HasSubstr;

class JsonLog : public RunningProgram {
 protected:
  explicit JsonLog(const std::string& level = "info", const std::string& chat_template = "")
      : RunningProgram({.format = "json", .level = level, .chat_template = chat_template}) {}

  static pb::GenerateRequest request(const std::string& id) {
    pb::GenerateRequest request;
    request.set_request_id(id);
    request.set_prompt("a secret in the prompt, which is longer than what is kept of it");
    request.mutable_sampling()->set_max_tokens(5);
    request.mutable_sampling()->set_ignore_eos(true);
    request.mutable_cache_policy()->mutable_snapkv()->set_window_tokens(4);
    request.mutable_cache_policy()->mutable_budget()->set_tokens(16);
    return request;
  }
  grpc::Status generate(const pb::GenerateRequest& request, const std::string& traceparent = "") {
    grpc::ClientContext context;
    if (!traceparent.empty()) context.AddMetadata("traceparent", traceparent);
    pb::GenerateResponse response;
    const grpc::Status status = stub_->Generate(&context, request, &response);
    cache_ = response.cache();
    return status;
  }
  // Ends the program; every line it has written since it was ready. Fails the test where one is no JSON.
  std::vector<Json> lines() {
    stub_.reset();  // the server would wait for the connection of a client that looks at it every few seconds
    program_.send(SIGTERM);
    std::istringstream output(program_.read_all());
    EXPECT_EQ(program_.wait(), 0);
    EXPECT_THAT(output.str(), ::testing::Not(HasSubstr("secret")));
    std::vector<Json> lines;
    for (std::string line; std::getline(output, line);) {
      lines.push_back(Json::parse(line, nullptr, /*allow_exceptions=*/false));
      EXPECT_TRUE(lines.back().is_object()) << line;
    }
    return lines;
  }
  std::vector<Json> calls() {
    std::vector<Json> calls;
    for (const Json& line : lines()) {
      if (line.value("message", "") == "call") calls.push_back(line);
    }
    return calls;
  }

  pb::CacheReport cache_;
};

TEST_F(JsonLog, ALineForACall) {
  const std::string trace = "4bf92f3577b34da6a3ce929d0e0e4736", span = "00f067aa0ba902b7";
  ASSERT_TRUE(generate(request("one"), "00-" + trace + "-" + span + "-01").ok());
  const std::vector<Json> all = calls();
  ASSERT_EQ(all.size(), 1u);
  const Json& call = all[0];
  EXPECT_EQ(call["level"], "info");
  EXPECT_EQ(call["request_id"], "one");
  EXPECT_THAT(call["peer"].get<std::string>(), HasSubstr("127.0.0.1"));
  EXPECT_EQ(call["method"], "Generate");
  EXPECT_EQ(call["policy"], "snapkv");
  EXPECT_TRUE(call["prompt_tokens"].is_number_integer());
  EXPECT_GT(call["prompt_tokens"], 16);
  EXPECT_EQ(call["generated_tokens"], 5);
  EXPECT_NEAR(call["kept_share"].get<double>(), double(cache_.held_bytes()) / double(cache_.full_bytes()), 1e-5);
  EXPECT_NEAR(call["recall"].get<double>(), cache_.recall().mean(), 1e-5);
  EXPECT_LE(call["first_token_seconds"].get<double>(), call["total_seconds"].get<double>());
  EXPECT_EQ(call["code"], "OK");
  EXPECT_FALSE(call.contains("reason"));
  EXPECT_EQ(call["trace_id"], trace);
  EXPECT_EQ(call["span_id"], span);
}

TEST_F(JsonLog, RefusedAndCancelledCallsToo) {
  pb::GenerateRequest wrong = request("wrong");
  wrong.mutable_sampling()->set_top_p(2);
  EXPECT_EQ(generate(wrong, "00-nonsense").error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  pb::GenerateRequest endless = request("endless");
  endless.mutable_sampling()->set_max_tokens(60000);
  {
    grpc::ClientContext context;
    const auto reader = stub_->GenerateStream(&context, endless);
    for (pb::GenerateStreamResponse event; reader->Read(&event) && !event.has_delta();) {
    }
    context.TryCancel();
    reader->Finish();
  }
  const std::vector<Json> all = calls();
  ASSERT_EQ(all.size(), 2u);
  EXPECT_EQ(all[0]["request_id"], "wrong");
  EXPECT_EQ(all[0]["policy"], "none");
  EXPECT_EQ(all[0]["code"], "INVALID_ARGUMENT");
  EXPECT_EQ(all[0]["reason"], "BAD_SAMPLING");
  EXPECT_EQ(all[0]["field"], "sampling.top_p");
  EXPECT_FALSE(all[0].contains("trace_id"));
  EXPECT_EQ(all[1]["request_id"], "endless");
  EXPECT_EQ(all[1]["method"], "GenerateStream");
  EXPECT_EQ(all[1]["code"], "CANCELLED");
  EXPECT_GE(all[1]["generated_tokens"], 1);
}

class DebugLog : public JsonLog {
 protected:
  DebugLog() : JsonLog("debug") {}
};

TEST_F(DebugLog, TellsARequestsLifeStepByStepWithoutItsText) {
  ASSERT_TRUE(generate(request("good")).ok());
  pb::GenerateRequest wrong = request("wrong");
  wrong.mutable_sampling()->set_top_p(2);
  EXPECT_FALSE(generate(wrong).ok());
  std::map<std::string, std::vector<std::string>> steps;
  Json prepared, ended;
  for (const Json& line : lines()) {
    if (line.value("message", "") != "request") continue;
    EXPECT_EQ(line["level"], "debug");
    if (line["step"] == "prepared") prepared = line;
    if (line["step"] == "ended") ended = line["code"] == "OK" ? line : ended;
    if (line["step"] != "reading") steps[line["request_id"]].push_back(line["step"]);
  }
  using ::testing::ElementsAre;
  EXPECT_THAT(steps["good"],
              ElementsAre("received", "prepared", "queued", "admitted", "first token", "ended", "delivered"));
  EXPECT_THAT(steps["wrong"], ElementsAre("received", "ended", "delivered"));
  EXPECT_EQ(prepared["policy"], "snapkv");
  EXPECT_GT(prepared["peak_bytes"], 0);
  EXPECT_GT(ended["evicted_entries"], 0);
  EXPECT_EQ(ended["generated_tokens"], 5);
}

class SecretLog : public JsonLog {
 protected:
  static constexpr uint32_t kTokens = 20;
  static constexpr size_t kLongText = 10;  // bytes that no line has by chance

  // Its template fails where a message says so, with the words of that message.
  SecretLog()
      : JsonLog("debug",
                "{% for m in messages %}{% if 'fail' in m.content %}{{ raise_exception(m.content) }}{% endif %}"
                "{{ m.content }}{% endfor %}") {}

  static pb::GenerateRequest long_request(const std::string& id) {
    pb::GenerateRequest wish = request(id);
    wish.mutable_sampling()->set_max_tokens(kTokens);
    return wish;
  }
  static pb::GenerateRequest chat(const std::string& content) {
    pb::GenerateRequest wish = long_request("chat");
    pb::ChatMessage& message = *wish.mutable_chat()->add_messages();
    message.set_role("user");
    message.set_content(content);
    return wish;
  }
  void keep(const std::string& answer) {
    EXPECT_GE(answer.size(), kLongText);
    answers_.push_back(answer);
  }
  void generate_and_keep(const pb::GenerateRequest& wish) {
    grpc::ClientContext context;
    pb::GenerateResponse response;
    EXPECT_TRUE(stub_->Generate(&context, wish, &response).ok());
    keep(response.choices(0).text());
  }
  void stream_and_keep(const pb::GenerateRequest& wish) {
    grpc::ClientContext context;
    const auto reader = stub_->GenerateStream(&context, wish);
    std::string answer;
    for (pb::GenerateStreamResponse event; reader->Read(&event);) answer += event.delta().text();
    EXPECT_TRUE(reader->Finish().ok());
    keep(answer);
  }
  void compare_and_keep() {
    pb::CompareRequest wish;
    *wish.mutable_request() = long_request("compared");
    wish.mutable_request()->clear_cache_policy();
    *wish.add_policies() = request("").cache_policy();
    grpc::ClientContext context;
    pb::CompareResponse response;
    const grpc::Status status = stub_->Compare(&context, wish, &response);
    ASSERT_TRUE(status.ok()) << status.error_message();
    keep(response.baseline().choices(0).text());
    keep(response.comparisons(0).text());
  }
  grpc::Status tokenize(const pb::TokenizeRequest& wish) {
    grpc::ClientContext context;
    pb::TokenizeResponse response;
    return stub_->Tokenize(&context, wish, &response);
  }
  // The reply's body.
  std::string post(const std::string& path, Json body) const {
    body.update({{"max_tokens", kTokens}, {"ignore_eos", true}});
    const std::string text = body.dump();
    const int port = std::stoi(http_address_.substr(http_address_.rfind(':') + 1));
    const std::string reply = test::HttpConnection(port).ask(
        "POST " + path + " HTTP/1.1\r\nConnection: close\r\nContent-Length: " + std::to_string(text.size()) +
        "\r\n\r\n" + text);
    return reply.substr(reply.find("\r\n\r\n") + 4);
  }
  static Json chat_of(const std::string& content) {
    return {{"messages", Json::array({{{"role", "user"}, {"content", content}}})}};
  }
  // No line of the log has an answer in it; for prompts lines() sees to that.
  void expect_no_answers() {
    for (const Json& line : lines()) {
      for (const std::string& answer : answers_) {
        const std::string escaped = Json(answer).dump();
        EXPECT_EQ(line.dump().find(escaped.substr(1, escaped.size() - 2)), std::string::npos) << line;
      }
    }
  }

 private:
  std::vector<std::string> answers_;
};

TEST_F(SecretLog, WhateverWayATextComesItIsNotInIt) {
  generate_and_keep(long_request("one"));
  generate_and_keep(chat("a secret of a chat, for an answer in one piece"));
  stream_and_keep(chat("a secret of a chat, for an answer in pieces"));
  compare_and_keep();
  pb::TokenizeRequest text;
  text.set_text("a secret text");
  EXPECT_TRUE(tokenize(text).ok());
  keep(Json::parse(post("/v1/completions", {{"prompt", "a secret over HTTP"}}))["choices"][0]["text"]);
  keep(Json::parse(post("/v1/chat/completions", chat_of("a secret")))["choices"][0]["message"]["content"]);
  EXPECT_THAT(post("/v1/completions", {{"prompt", "a secret over HTTP"}, {"stream", true}}), HasSubstr("[DONE]"));
  EXPECT_THAT(post("/v1/completions", {{"prompt", "a secret"}, {"a secret field", 1}}), HasSubstr("a secret field"));
  EXPECT_THAT(post("/v1/completions", {{"prompt", {{"a secret", 1}}}}), HasSubstr("BAD_INPUT"));
  expect_no_answers();
}

TEST_F(SecretLog, NorWhereAChatTemplateFails) {
  const std::string words = "a secret that makes it fail";
  EXPECT_THAT(generate(chat(words)).error_message(), HasSubstr(words));
  pb::TokenizeRequest wish;
  *wish.mutable_chat() = chat(words).chat();
  EXPECT_THAT(tokenize(wish).error_message(), HasSubstr(words));
  EXPECT_THAT(post("/v1/chat/completions", chat_of(words)), HasSubstr(words));
  EXPECT_THAT(calls(), ::testing::SizeIs(3));
}

TEST_F(JsonLog, NothingBreaksIt) {
  // What would reach a terminal is refused, and not repeated.
  EXPECT_EQ(generate(request("id\x1b[31m\n{\"\xC2\x9B\x7f")).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  // protobuf has something to say about this.
  pb::GenerateRequest bad_text = request("bad");
  bad_text.set_prompt("secret \xFF");
  EXPECT_EQ(generate(bad_text).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  std::vector<std::string> libraries, ids;
  for (const Json& line : lines()) {
    if (line.contains("library")) libraries.push_back(line["library"]);
    if (line.contains("request_id")) ids.push_back(line["request_id"]);
  }
  EXPECT_THAT(libraries, ::testing::Contains("protobuf"));
  EXPECT_THAT(ids, ::testing::Each(::testing::Not(::testing::HasSubstr("\x1b"))));
}

}  // namespace
}  // namespace pkv
