// API keys over real connections: who is refused what, by which reason, and what stays open.
#include <gmock/gmock.h>

#include "client/client.h"
#include "tests/integration/server_fixture.h"
#include "tests/support/http_client.h"

namespace pkv {
namespace {

using ::testing::HasSubstr;

const std::string kAlice = "alice-0123456789abcdef", kOps = "ops-0123456789abcdefgh", kOne = "one-0123456789abcdefgh";

std::string keys_text() {
  const auto line = [](const std::string& key, const std::string& rest) {
    return key_hash_text(hash_key(key)) + " " + rest + "\n";
  };
  return line(kAlice, "alice") + line(kOps, "ops scope=stats") + line(kOne, "one scope=generate,stats max_requests=1");
}

class KeysTest : public ServerTest {
 protected:
  void SetUp() override {
    start_and_load([this](Config& config) {
      config.server.api_keys = keys_.path();
      config.http.listen = "127.0.0.1:0";
    });
  }
  using Metadata = std::vector<std::string>;  // values of `authorization`
  static Metadata bearer(const std::string& key) { return {"Bearer " + key}; }

  // The status of every method of ours, by name.
  std::map<std::string, grpc::Status> call_all(const Metadata& authorization) {
    const auto call = [&](const auto& invoke) {
      grpc::ClientContext context;
      for (const std::string& value : authorization) context.AddMetadata("authorization", value);
      return invoke(&context);
    };
    const auto unary = [&](auto& stub, auto method, const auto& wish, auto reply) {
      return call([&](grpc::ClientContext* context) { return (stub.*method)(context, wish, &reply); });
    };
    std::map<std::string, grpc::Status> all;
    using Generation = pb::GenerationService::Stub;
    pb::TokenizeRequest text;
    text.set_text("hello");
    pb::DetokenizeRequest ids;
    ids.add_token_ids(70);
    pb::EstimateCacheRequest estimate;
    estimate.set_prompt_tokens(9);
    pb::CompareRequest compare;
    *compare.mutable_request() = request("hello", 2);
    compare.add_policies()->mutable_streaming_llm();
    compare.mutable_policies(0)->mutable_budget()->set_tokens(64);
    all["Generate"] = unary(*generation_, &Generation::Generate, request("hello", 2), pb::GenerateResponse());
    all["Tokenize"] = unary(*generation_, &Generation::Tokenize, text, pb::TokenizeResponse());
    all["Detokenize"] = unary(*generation_, &Generation::Detokenize, ids, pb::DetokenizeResponse());
    all["EstimateCache"] = unary(*generation_, &Generation::EstimateCache, estimate, pb::EstimateCacheResponse());
    all["Compare"] = unary(*generation_, &Generation::Compare, compare, pb::CompareResponse());
    all["ListModels"] =
        unary(*model_, &pb::ModelService::Stub::ListModels, pb::ListModelsRequest(), pb::ListModelsResponse());
    all["ListCachePolicies"] = unary(*model_, &pb::ModelService::Stub::ListCachePolicies,
                                     pb::ListCachePoliciesRequest(), pb::ListCachePoliciesResponse());
    all["GetStats"] = unary(*stats_, &pb::StatsService::Stub::GetStats, pb::GetStatsRequest(), pb::GetStatsResponse());
    all["GenerateStream"] = call([&](grpc::ClientContext* context) {
      const auto reader = generation_->GenerateStream(context, request("hello", 2));
      for (pb::GenerateStreamResponse event; reader->Read(&event);) {
      }
      return reader->Finish();
    });
    all["WatchStats"] = call([&](grpc::ClientContext* context) {
      const auto reader = stats_->WatchStats(context, {});
      pb::WatchStatsResponse first;
      const bool watching = reader->Read(&first);
      if (watching) context->TryCancel();
      const grpc::Status status = reader->Finish();
      return watching ? grpc::Status::OK : status;
    });
    return all;
  }
  void expect_all_unauthenticated(const Metadata& authorization, const std::string& words) {
    for (const auto& [method, status] : call_all(authorization)) {
      EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAUTHENTICATED) << method << ": " << status.error_message();
      EXPECT_EQ(reason(status), "UNAUTHENTICATED") << method;
      EXPECT_THAT(status.error_message(), HasSubstr(words)) << method;
    }
  }
  // The methods that `authorization` may not call, by their codes.
  std::map<std::string, grpc::StatusCode> refused(const Metadata& authorization) {
    std::map<std::string, grpc::StatusCode> found;
    for (const auto& [method, status] : call_all(authorization)) {
      if (!status.ok()) found[method] = status.error_code();
    }
    return found;
  }
  client::Client client_with(const std::string& key) const {
    return client::Client("127.0.0.1:" + std::to_string(app_->port()), {.api_key = key});
  }

  const test::TempFile keys_{keys_text()};
};

TEST_F(KeysTest, WithoutAGoodKeyNothingIsAnswered) {
  expect_all_unauthenticated({}, "authorization: Bearer KEY");
  expect_all_unauthenticated(bearer("alice-0123456789abcdeg"), "none of this server's");
  expect_all_unauthenticated({"Basic " + kAlice}, "not one \"Bearer KEY\"");
  expect_all_unauthenticated({"Bearer " + kAlice, "Bearer " + kAlice}, "not one \"Bearer KEY\"");
}

TEST_F(KeysTest, AKeyOpensWhatItsScopeSays) {
  using grpc::StatusCode;
  EXPECT_THAT(refused(bearer(kAlice)), ::testing::ElementsAre(std::pair("GetStats", StatusCode::PERMISSION_DENIED),
                                                              std::pair("WatchStats", StatusCode::PERMISSION_DENIED)));
  EXPECT_THAT(refused(bearer(kOps)), ::testing::ElementsAre(std::pair("Compare", StatusCode::PERMISSION_DENIED),
                                                            std::pair("Detokenize", StatusCode::PERMISSION_DENIED),
                                                            std::pair("EstimateCache", StatusCode::PERMISSION_DENIED),
                                                            std::pair("Generate", StatusCode::PERMISSION_DENIED),
                                                            std::pair("GenerateStream", StatusCode::PERMISSION_DENIED),
                                                            std::pair("Tokenize", StatusCode::PERMISSION_DENIED)));
  // One after another, with a limit of one: a call's place is free when its caller has the answer.
  for (int i = 0; i < 20; ++i) EXPECT_THAT(refused(bearer(kOne)), ::testing::IsEmpty());
}

TEST_F(KeysTest, TheHttpApiAsksForTheSameKeys) {
  const auto ask = [this](const std::string& line, const std::string& key, const std::string& body) {
    const std::string header = key.empty() ? "" : "Authorization: Bearer " + key + "\r\n";
    return test::HttpConnection(app_->http_port())
        .ask(line + " HTTP/1.1\r\nConnection: close\r\n" + header + "Content-Length: " + std::to_string(body.size()) +
             "\r\n\r\n" + body);
  };
  const std::string prompt = R"({"prompt": "hello", "max_tokens": 2})";
  const std::string chat = R"({"messages": [{"role": "user", "content": "hello"}], "max_tokens": 2})";
  for (const std::string& key : {std::string(), std::string("wrong")}) {
    for (const std::string& answer : {ask("POST /v1/completions", key, prompt),
                                      ask("POST /v1/chat/completions", key, chat), ask("GET /v1/models", key, "")}) {
      EXPECT_THAT(answer, ::testing::StartsWith("HTTP/1.1 401 ")) << key;
      EXPECT_THAT(answer, HasSubstr("UNAUTHENTICATED")) << key;
      EXPECT_THAT(answer, HasSubstr("WWW-Authenticate: Bearer")) << key;
    }
  }
  EXPECT_THAT(ask("POST /v1/completions", kAlice, prompt), ::testing::StartsWith("HTTP/1.1 200 "));
  EXPECT_THAT(ask("GET /v1/models", kOps, ""), ::testing::StartsWith("HTTP/1.1 200 "));
  EXPECT_THAT(ask("POST /v1/completions", kOps, prompt), ::testing::StartsWith("HTTP/1.1 403 "));
  // A place that is not given back would be missed by the second.
  for (int i = 0; i < 3; ++i) {
    EXPECT_THAT(ask("POST /v1/completions", kOne, prompt), ::testing::StartsWith("HTTP/1.1 200 ")) << i;
  }
  EXPECT_THAT(ask("GET /healthz", "", ""), ::testing::StartsWith("HTTP/1.1 200 "));
}

TEST_F(KeysTest, NoBodyIsWaitedForWithoutAGoodKey) {
  const auto ask = [this](const std::string& line, const std::string& key) {
    return test::HttpConnection(app_->http_port())
        .ask(line + " HTTP/1.1\r\nAuthorization: Bearer " + key + "\r\nContent-Length: 1000\r\n\r\n");
  };
  EXPECT_THAT(ask("POST /v1/completions", "wrong"), ::testing::StartsWith("HTTP/1.1 401 "));
  EXPECT_THAT(ask("POST /v1/chat/completions", "wrong"), ::testing::StartsWith("HTTP/1.1 401 "));
  EXPECT_THAT(ask("GET /v1/models", "wrong"), ::testing::StartsWith("HTTP/1.1 401 "));
  EXPECT_THAT(ask("POST /v2", kAlice), ::testing::StartsWith("HTTP/1.1 404 "));
}

TEST_F(KeysTest, HealthStaysOpen) {
  client::Client anybody = client_with("");
  const auto health = anybody.check_health("", std::chrono::seconds(10));
  ASSERT_TRUE(health) << health.error.message;
  EXPECT_EQ(*health, client::Health::kServing);
}

TEST_F(KeysTest, AKeysRequestsAreLimited) {
  grpc::ClientContext context;
  context.AddMetadata("authorization", "Bearer " + kOne);
  const auto reader = generation_->GenerateStream(&context, request("hello", kEndless));
  pb::GenerateStreamResponse event;
  ASSERT_TRUE(reader->Read(&event));
  grpc::ClientContext second;
  second.AddMetadata("authorization", "Bearer " + kOne);
  pb::GenerateResponse reply;
  const grpc::Status status = generation_->Generate(&second, request("hello", 2), &reply);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(reason(status), "KEY_LIMIT");
  EXPECT_EQ(metadata(status)["key"], "one");
  EXPECT_EQ(metadata(status)["max"], "1");
  EXPECT_THAT(status.error_message(), HasSubstr("max_requests"));
  client::Client other = client_with(kAlice);
  EXPECT_TRUE(other.generate(request("hello", 2)));
  context.TryCancel();
  while (reader->Read(&event)) {
  }
  reader->Finish();
  client::Client same = client_with(kOne);
  EXPECT_TRUE(eventually([&] { return static_cast<bool>(same.generate(request("hello", 2))); }));
}

TEST_F(KeysTest, TheClientSendsItsKeyWithEveryCall) {
  client::Client one = client_with(kOne);
  EXPECT_TRUE(one.generate(request("hello", 2)));
  EXPECT_TRUE(one.generate_stream(request("hello", 2), [](const auto&) { return true; }));
  EXPECT_TRUE(one.get_stats(false));
  EXPECT_FALSE(one.watch_stats({}, [](const auto&) { return false; }).has_value());
  client::Client nobody = client_with("");
  const auto refusal = nobody.generate(request("hello", 2));
  ASSERT_FALSE(refusal);
  EXPECT_THAT(refusal.error.describe(), AllOf(HasSubstr("[UNAUTHENTICATED]"), HasSubstr("--api-key-file")));
}

}  // namespace
}  // namespace pkv
