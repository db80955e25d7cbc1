// OpenAI's API over real sockets: every endpoint, streams, errors, limits, and what becomes of clients that leave.
#include <gmock/gmock.h>

#include <nlohmann/json.hpp>
#include <thread>

#include "tests/integration/server_fixture.h"
#include "tests/support/http_client.h"

namespace pkv {
namespace {

using Json = nlohmann::json;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::StartsWith;

struct Reply {
  std::string head;
  Json body;
};

Reply split(const std::string& text) {
  const size_t end = text.find("\r\n\r\n");
  EXPECT_NE(end, std::string::npos) << text;
  return {.head = text.substr(0, end + 2), .body = Json::parse(text.substr(end + 4), nullptr, false)};
}

class HttpTest : public ServerTest {
 protected:
  void start_with_http(const std::function<void(Config&)>& change = {}) {
    ASSERT_NO_FATAL_FAILURE(start_and_load([&](Config& config) {
      config.http.listen = "127.0.0.1:0";
      if (change) change(config);
    }));
  }
  static std::string request_text(const std::string& path, const std::string& body, const std::string& headers = "") {
    return "POST " + path + " HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\n" +
           headers + "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
  }
  std::string post_text(const std::string& path, const std::string& body, const std::string& headers = "") {
    return test::HttpConnection(app_->http_port()).ask(request_text(path, body, headers));
  }
  std::string get(const std::string& path) {
    return test::HttpConnection(app_->http_port()).ask("GET " + path + " HTTP/1.1\r\nConnection: close\r\n\r\n");
  }
  Reply post(const std::string& path, const Json& body, const std::string& headers = "") {
    return split(post_text(path, body.dump(), headers));
  }
  Reply complete(const Json& fields = Json::object()) {
    Json body = {{"prompt", "hello"}, {"temperature", 0}, {"max_tokens", 5}, {"ignore_eos", true}};
    body.update(fields);
    return post("/v1/completions", body);
  }
  Reply chat(const Json& fields = Json::object()) {
    Json body = {{"messages", Json::array({{{"role", "user"}, {"content", "hello"}}})},
                 {"temperature", 0},
                 {"max_tokens", 5},
                 {"ignore_eos", true}};
    body.update(fields);
    return post("/v1/chat/completions", body);
  }
  // The events of a stream; the last is "[DONE]".
  std::vector<std::string> events(const std::string& path, Json body) {
    body["stream"] = true;
    std::string text = post_text(path, body.dump());
    EXPECT_THAT(text, StartsWith("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream"));
    std::vector<std::string> out;
    for (size_t at = text.find("data: "); at != std::string::npos; at = text.find("data: ", at)) {
      const size_t end = text.find("\n\n", at);
      out.push_back(text.substr(at + 6, end - at - 6));
      at = end;
    }
    return out;
  }
  // What gRPC gives for the same.
  std::string expected_text(const pb::GenerateRequest& wish) {
    pb::GenerateResponse reply;
    EXPECT_TRUE(generate(wish, reply).ok());
    return reply.choices(0).text();
  }
  void expect_error(const Reply& reply, int status, const std::string& code, const Json& param) {
    EXPECT_THAT(reply.head, StartsWith("HTTP/1.1 " + std::to_string(status) + " ")) << reply.body;
    EXPECT_EQ(reply.body["error"]["code"], code) << reply.body;
    EXPECT_EQ(reply.body["error"]["param"], param) << reply.body;
    EXPECT_TRUE(reply.body["error"]["message"].is_string());
    EXPECT_TRUE(reply.body["error"]["type"].is_string());
  }
};

TEST_F(HttpTest, CompletionsAreThoseOfGrpc) {
  start_with_http();
  const Reply reply = complete({{"cache_policy", {{"snapkv", {{"window_tokens", 4}}}, {"budget", {{"tokens", 16}}}}}});
  ASSERT_THAT(reply.head, StartsWith("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"));
  EXPECT_EQ(reply.body["object"], "text_completion");
  EXPECT_EQ(reply.body["model"], "tiny");
  pb::GenerateRequest wish = request("hello", 5);
  EXPECT_EQ(reply.body["choices"][0]["text"], expected_text(wish));
  EXPECT_EQ(reply.body["choices"][0]["finish_reason"], "length");
  EXPECT_EQ(reply.body["choices"][0]["logprobs"], nullptr);
  EXPECT_EQ(reply.body["usage"]["completion_tokens"], 5);
  EXPECT_EQ(reply.body["usage"]["total_tokens"].get<int>(), reply.body["usage"]["prompt_tokens"].get<int>() + 5);
  EXPECT_EQ(reply.body["cache"]["policy_name"], "snapkv");
  EXPECT_EQ(reply.body["cache"]["effective_policy"]["budget"]["tokens"], 16);
  EXPECT_FALSE(complete({{"cache_report", "none"}}).body.contains("cache"));
  EXPECT_GT(complete({{"cache_report", "PER_LAYER"}}).body["cache"]["layers"].size(), 0u);
  EXPECT_TRUE(eventually_idle());
}

TEST_F(HttpTest, PromptsAreTextOrTokens) {
  start_with_http();
  const Json text = complete().body["choices"][0]["text"];
  grpc::ClientContext context;
  pb::TokenizeRequest tokenize;
  tokenize.set_text("hello");
  pb::TokenizeResponse tokens;
  ASSERT_TRUE(generation_->Tokenize(&context, tokenize, &tokens).ok());
  const Json ids(std::vector<uint32_t>(tokens.token_ids().begin(), tokens.token_ids().end()));
  EXPECT_EQ(complete({{"prompt", ids}}).body["choices"][0]["text"], text);
  EXPECT_EQ(complete({{"prompt", Json::array({ids})}}).body["choices"][0]["text"], text);
  EXPECT_EQ(complete({{"prompt", Json::array({"hello"})}}).body["choices"][0]["text"], text);
  expect_error(complete({{"prompt", {"hello", "world"}}}), 400, "UNIMPLEMENTED", "prompt");
}

TEST_F(HttpTest, ChatsAreThoseOfGrpc) {
  start_with_http();
  pb::GenerateRequest wish = request("", 5);
  pb::ChatMessage& message = *wish.mutable_chat()->add_messages();
  message.set_role("user");
  message.set_content("hello");
  const std::string expected = expected_text(wish);
  const Reply reply = chat();
  ASSERT_THAT(reply.head, StartsWith("HTTP/1.1 200 OK\r\n")) << reply.body;
  EXPECT_EQ(reply.body["object"], "chat.completion");
  EXPECT_EQ(reply.body["choices"][0]["message"]["role"], "assistant");
  EXPECT_EQ(reply.body["choices"][0]["message"]["content"], expected);
  const Json parts = Json::array({{{"type", "text"}, {"text", "hel"}}, {{"type", "text"}, {"text", "lo"}}});
  const Json in_parts = {{"messages", Json::array({{{"role", "user"}, {"content", parts}, {"tool_calls", nullptr}}})}};
  EXPECT_EQ(chat(in_parts).body["choices"][0]["message"]["content"], expected);
}

TEST_F(HttpTest, StreamsSayTheSameInParts) {
  start_with_http();
  const std::string expected = complete().body["choices"][0]["text"];
  const Json body = {{"prompt", "hello"},
                     {"temperature", 0},
                     {"max_tokens", 5},
                     {"ignore_eos", true},
                     {"stream_options", {{"include_usage", true}}}};
  std::vector<std::string> list = events("/v1/completions", body);
  ASSERT_GE(list.size(), 4u);
  EXPECT_EQ(list.back(), "[DONE]");
  list.pop_back();
  std::string text;
  int ends = 0;
  for (const std::string& event : list) {
    const Json json = Json::parse(event);
    ASSERT_TRUE(json.contains("usage"));
    for (const Json& choice : json["choices"]) {
      text += choice["text"];
      if (choice["finish_reason"].is_null()) continue;
      ++ends;
      EXPECT_EQ(json["cache"]["policy_name"], "full");
    }
  }
  EXPECT_EQ(text, expected);
  EXPECT_EQ(ends, 1);
  const Json last = Json::parse(list.back());
  EXPECT_TRUE(last["choices"].empty());
  EXPECT_EQ(last["usage"]["completion_tokens"], 5);
}

TEST_F(HttpTest, ChatStreamsBeginWithTheRole) {
  start_with_http();
  const std::string expected = chat().body["choices"][0]["message"]["content"];
  const Json body = {{"messages", Json::array({{{"role", "user"}, {"content", "hello"}}})},
                     {"temperature", 0},
                     {"max_tokens", 5},
                     {"ignore_eos", true}};
  const std::vector<std::string> list = events("/v1/chat/completions", body);
  ASSERT_GE(list.size(), 3u);
  EXPECT_EQ(Json::parse(list.front())["choices"][0]["delta"]["role"], "assistant");
  std::string text;
  for (size_t i = 0; i + 1 < list.size(); ++i) {
    const Json json = Json::parse(list[i]);
    EXPECT_EQ(json["object"], "chat.completion.chunk");
    EXPECT_FALSE(json.contains("usage"));
    text += json["choices"][0]["delta"].value("content", "");
  }
  EXPECT_EQ(text, expected);
  EXPECT_EQ(list.back(), "[DONE]");
}

TEST_F(HttpTest, LogprobsHaveTheFormOfTheirEndpoint) {
  start_with_http();
  const Json listed = complete({{"logprobs", 2}, {"echo", true}}).body["choices"][0]["logprobs"];
  ASSERT_GT(listed["tokens"].size(), 5u);
  EXPECT_EQ(listed["token_logprobs"].size(), listed["tokens"].size());
  EXPECT_EQ(listed["token_logprobs"][0], nullptr);
  EXPECT_LT(listed["token_logprobs"][1].get<double>(), 0);
  EXPECT_EQ(listed["text_offset"][0], 0);
  const Json chosen = chat({{"logprobs", true}, {"top_logprobs", 2}}).body["choices"][0]["logprobs"]["content"];
  ASSERT_EQ(chosen.size(), 5u);
  EXPECT_EQ(chosen[0]["top_logprobs"].size(), 2u);
  EXPECT_EQ(chosen[0]["logprob"], chosen[0]["top_logprobs"][0]["logprob"]);  // it is greedy
  EXPECT_TRUE(chosen[0]["bytes"].is_array());
}

TEST_F(HttpTest, ErrorsNameTheFieldOfTheBody) {
  start_with_http();
  expect_error(complete({{"temperature", 1000}}), 400, "BAD_SAMPLING", "temperature");
  expect_error(complete({{"temperature", "hot"}}), 400, "BAD_INPUT", "temperature");
  expect_error(complete({{"n", 2}}), 400, "BAD_SAMPLING", "n");
  expect_error(complete({{"logprobs", 21}}), 400, "BAD_SAMPLING", "logprobs");
  expect_error(chat({{"top_logprobs", 21}}), 400, "BAD_SAMPLING", "top_logprobs");
  expect_error(complete({{"max_tokens", 1 << 20}}), 400, "CONTEXT_TOO_LONG", "max_tokens");
  expect_error(complete({{"model", "other"}}), 404, "NOT_FOUND", "model");
  expect_error(complete({{"cache_policy", {{"snapkvv", Json::object()}}}}), 400, "BAD_INPUT", "cache_policy");
  expect_error(complete({{"cache_policy", {{"full", Json::object()}, {"budget", {{"tokens", 9}}}}}}), 400,
               "BAD_CACHE_POLICY", "cache_policy.budget");
  expect_error(chat({{"messages", Json::array({{{"role", "robot"}, {"content", "x"}}})}}), 400, "BAD_INPUT",
               "messages[0].role");
  expect_error(chat({{"messages", Json::array()}}), 400, "BAD_INPUT", "messages");
  expect_error(post("/v1/completions", Json::object()), 400, "BAD_INPUT", "prompt");
  expect_error(split(post_text("/v1/completions", "{\"prompt\": ")), 400, "BAD_INPUT", nullptr);
  expect_error(split(post_text("/v1/completions", std::string(100, '['))), 400, "BAD_INPUT", nullptr);
  expect_error(split(post_text("/v1/completions", "[]")), 400, "BAD_INPUT", nullptr);
  EXPECT_TRUE(eventually([&] { return app_->open_calls() == 0; }));  // an end is counted once it is sent
  EXPECT_EQ(stats().totals().requests_by_code().at("NOT_FOUND"), 1u);
}

TEST_F(HttpTest, WhatWouldChangeTheMeaningIsRefusedAndTheRestPassedOver) {
  start_with_http();
  for (const auto& [name, value] :
       std::vector<std::pair<std::string, Json>>{{"tools", Json::array({{{"type", "function"}}})},
                                                 {"response_format", {{"type", "json_object"}}},
                                                 {"best_of", 2},
                                                 {"suffix", "end"},
                                                 {"reasoning_effort", "high"}}) {
    expect_error(complete({{name, value}}), 400, "UNIMPLEMENTED", name);
  }
  expect_error(complete({{"no_such_field", 1}}), 400, "UNIMPLEMENTED", "no_such_field");
  const Json text = complete().body["choices"][0]["text"];
  const Json harmless = {
      {"user", "me"}, {"metadata", {{"a", "b"}}}, {"store", false},         {"suffix", nullptr},
      {"best_of", 1}, {"service_tier", "auto"},   {"tools", Json::array()}, {"response_format", {{"type", "text"}}}};
  EXPECT_EQ(complete(harmless).body["choices"][0]["text"], text);
}

TEST_F(HttpTest, ModelsProbesAndUnknownPaths) {
  start_with_http();
  const Json models = split(get("/v1/models")).body;
  EXPECT_EQ(models["object"], "list");
  EXPECT_EQ(models["data"][0]["id"], "tiny");
  EXPECT_EQ(split(get("/v1/models/tiny")).body["object"], "model");
  EXPECT_THAT(get("/v1/models/other"), StartsWith("HTTP/1.1 404 "));
  EXPECT_THAT(get("/healthz"), AllOf(StartsWith("HTTP/1.1 200 "), EndsWith("\r\n\r\nok\n")));
  EXPECT_THAT(get("/readyz"), StartsWith("HTTP/1.1 200 "));
  expect_error(split(get("/v2/models")), 404, "NOT_FOUND", nullptr);
  EXPECT_THAT(get("/v1/completions"), AllOf(StartsWith("HTTP/1.1 405 "), HasSubstr("\r\nAllow: POST\r\n")));
  expect_error(split(get("/v1/completions")), 405, "METHOD_NOT_ALLOWED", nullptr);
}

TEST_F(HttpTest, RequestIdsComeBack) {
  start_with_http();
  EXPECT_THAT(post_text("/v1/completions", R"({"prompt": "hello", "max_tokens": 1})", "X-Request-Id: mine\r\n"),
              AllOf(HasSubstr("\r\nX-Request-Id: mine\r\n"), HasSubstr("\"id\":\"cmpl-mine\"")));
  EXPECT_THAT(post_text("/v1/completions", "{}", "X-Request-Id: mine\r\n"),
              AllOf(StartsWith("HTTP/1.1 400 "), HasSubstr("\r\nX-Request-Id: mine\r\n")));
  expect_error(split(post_text("/v1/completions", R"({"prompt": "hello", "max_tokens": 1})",
                               "X-Request-Id: " + std::string(300, 'x') + "\r\n")),
               400, "BAD_INPUT", "X-Request-Id");
  expect_error(split(post_text("/v1/completions", R"({"prompt": "hello", "max_tokens": 1})", "X-Request-Id: \xff\r\n")),
               400, "BAD_INPUT", "X-Request-Id");
}

TEST_F(HttpTest, NotYetLoadedIsToldAsSuch) {
  start([](Config& config) { config.http.listen = "127.0.0.1:0"; });
  const Reply reply = complete();
  expect_error(reply, 503, "LOADING", nullptr);
  EXPECT_THAT(reply.head, HasSubstr("\r\nRetry-After: 1\r\n"));
  EXPECT_THAT(get("/readyz"), StartsWith("HTTP/1.1 503 "));
}

TEST_F(HttpTest, AFullQueueSaysWhenToComeBack) {
  start_with_http([](Config& config) {
    config.scheduler.max_running = 1;
    config.scheduler.max_waiting = 1;
  });
  OpenStream running(*generation_, request("first", kEndless));
  ASSERT_TRUE(running.read_to_delta());
  OpenStream waiting(*generation_, request("second", kEndless));
  ASSERT_TRUE(eventually([&] { return stats().scheduler().waiting() == 1; }));
  const Reply reply = complete();
  expect_error(reply, 429, "QUEUE_FULL", nullptr);
  EXPECT_THAT(reply.head, HasSubstr("\r\nRetry-After: 1\r\n"));
}

TEST_F(HttpTest, ClientsThatLeaveGiveTheirPagesBack) {
  start_with_http();
  for (const bool streamed : {false, true}) {
    {
      test::HttpConnection client(app_->http_port());
      const Json body = {{"prompt", "hello"}, {"max_tokens", kEndless}, {"ignore_eos", true}, {"stream", streamed}};
      client.send(request_text("/v1/completions", body.dump()));
      ASSERT_TRUE(eventually([&] { return stats().memory().kv_live_bytes() > 0; }));
    }
    EXPECT_TRUE(eventually_idle());
  }
  EXPECT_TRUE(eventually([&] { return app_->open_calls() == 0; }));
  EXPECT_EQ(stats().totals().requests_by_code().at("CANCELLED"), 2u);
}

TEST_F(HttpTest, WhoDoesNotReadIsCutOff) {
  start_with_http([](Config& config) { config.server.max_unread_bytes = 64 << 10; });
  test::HttpConnection client(app_->http_port());
  const Json body = {
      {"prompt", "hello"}, {"max_tokens", kEndless}, {"ignore_eos", true}, {"stream", true}, {"logprobs", 20}};
  client.send(request_text("/v1/completions", body.dump()));
  ASSERT_TRUE(eventually([&] { return stats().totals().rejected() > 0; }));
  EXPECT_TRUE(eventually_idle());  // long before its end
  const std::string reply = client.ask("");
  EXPECT_THAT(reply, HasSubstr("SLOW_READER"));
  EXPECT_THAT(reply, ::testing::Not(HasSubstr("[DONE]")));
}

TEST_F(HttpTest, LimitsOfBodiesAreTheConfigurations) {
  start_with_http([](Config& config) {
    config.http.max_body_bytes = 2000;
    config.http.max_header_bytes = 1024;
    config.http.max_connections = 1;
  });
  const auto message = [](const Reply& reply) { return reply.body["error"]["message"].get<std::string>(); };
  const Reply body = split(post_text("/v1/completions", std::string(2001, ' ')));
  expect_error(body, 413, "BODY_TOO_LARGE", nullptr);
  EXPECT_THAT(message(body), AllOf(HasSubstr("2000"), HasSubstr("http.max_body_bytes")));
  const Reply head = split(post_text("/v1/completions", "", "X: " + std::string(2000, 'x') + "\r\n"));
  expect_error(head, 431, "HEAD_TOO_LARGE", nullptr);
  EXPECT_THAT(message(head), AllOf(HasSubstr("1024"), HasSubstr("http.max_header_bytes")));
  expect_error(split(test::HttpConnection(app_->http_port()).ask("\r\n\r\n")), 400, "BAD_INPUT", nullptr);

  test::HttpConnection first(app_->http_port());
  const Json endless = {{"prompt", "hello"}, {"max_tokens", kEndless}, {"ignore_eos", true}, {"stream", true}};
  first.send(request_text("/v1/completions", endless.dump()));
  first.read();
  const Reply second = split(get("/v1/models"));
  expect_error(second, 503, "TOO_MANY_CONNECTIONS", nullptr);
  EXPECT_THAT(message(second), AllOf(HasSubstr("at most 1"), HasSubstr("http.max_connections")));
  EXPECT_THAT(second.head, HasSubstr("\r\nRetry-After: 1\r\n"));
}

// Known at admission, as over gRPC; the text alone is known when there is too much of it.
TEST_F(HttpTest, AnswersInOnePieceAreAsLargeAsAReply) {
  start_with_http([](Config& config) { config.server.max_message_bytes = 1 << 16; });
  expect_error(complete({{"max_tokens", 500}, {"logprobs", 20}}), 400, "REPLY_TOO_LARGE", "logprobs");
  EXPECT_EQ(policy_stats("full").requests_total(), 0u);
  const Reply text = complete({{"max_tokens", kEndless}});
  expect_error(text, 400, "REPLY_TOO_LARGE", nullptr);
  EXPECT_THAT(text.body["error"]["message"].get<std::string>(),
              AllOf(HasSubstr("server.max_message_bytes"), HasSubstr("stream")));
  EXPECT_TRUE(eventually_idle());
}

TEST_F(HttpTest, DrainingEndsStreamsWithAnError) {
  start_with_http();
  test::HttpConnection client(app_->http_port());
  const Json body = {{"prompt", "hello"}, {"max_tokens", kEndless}, {"ignore_eos", true}, {"stream", true}};
  client.send(request_text("/v1/completions", body.dump()));
  std::string reply;
  while (reply.find("data: ") == std::string::npos) reply += client.read();
  std::thread reader([&] { reply += client.ask(""); });
  EXPECT_TRUE(app_->stop(absl::Now()).ok());
  reader.join();
  EXPECT_THAT(reply, HasSubstr("data: {\"error\":"));
  EXPECT_THAT(reply, EndsWith("0\r\n\r\n"));
}

}  // namespace
}  // namespace pkv
