// The port of OpenAI's API without a model behind it.
#include "server/http/openai_server.h"

#include <gmock/gmock.h>

#include "tests/support/http_client.h"
#include "tests/unit/api/api_fixture.h"
#include "tests/unit/api/waiting_tokenizer.h"

namespace pkv {
namespace {

using ::testing::HasSubstr;

TEST(OpenAiServer, AWrongKeyLeavesATrace) {
  const Log log("info", "text");
  ServerState state(*PolicyCatalog::create({}, KvDtype::kF16), log, /*random_seed=*/1);
  state.authenticator().replace({{.hash = hash_key("a-key-of-mine"), .name = "me"}});
  auto server = OpenAiServer::start({.listen = "127.0.0.1:0"}, {}, state, {});
  ASSERT_TRUE(server.ok()) << server.status();
  ::testing::internal::CaptureStderr();
  const std::string reply =
      test::HttpConnection((*server)->port())
          .ask("GET /v1/models HTTP/1.1\r\nAuthorization: Bearer other\r\nConnection: close\r\n\r\n");
  EXPECT_THAT(reply, ::testing::StartsWith("HTTP/1.1 401 "));
  const std::string text = ::testing::internal::GetCapturedStderr();
  EXPECT_THAT(text, AllOf(HasSubstr("GET /v1/models"), HasSubstr("UNAUTHENTICATED"), HasSubstr("127.0.0.1")));
}

using OpenAiModelsTest = ApiTest;

TEST_F(OpenAiModelsTest, AnIdInThePathIsDecodedOnce) {
  served_.id = "org/a model";
  const auto server = OpenAiServer::start({.listen = "127.0.0.1:0"}, {}, *state_, {});
  ASSERT_TRUE(server.ok()) << server.status();
  const auto get = [&](const std::string& id) {
    return test::HttpConnection((*server)->port())
        .ask("GET /v1/models/" + id + " HTTP/1.1\r\nConnection: close\r\n\r\n");
  };
  EXPECT_THAT(get("org%2Fa%20model"), HasSubstr("\"id\":\"org/a model\""));
  EXPECT_THAT(get("org/a%20model"), HasSubstr("\"id\":\"org/a model\""));
  EXPECT_THAT(get("org%2Fa%2520model"), ::testing::StartsWith("HTTP/1.1 404 "));
  for (const char* bad : {"%", "%2", "org%2gb", "%-1"}) {
    EXPECT_THAT(get(bad), AllOf(::testing::StartsWith("HTTP/1.1 400 "), HasSubstr("BAD_INPUT"))) << bad;
  }
}

class OpenAiPreparationTest : public ApiTest {
 protected:
  // Whether tokenising ends when a client leaves that has posted `body`.
  void expect_stopped(const std::string& path, const std::string& body) {
    test::WaitingTokenizer waiting(*file_);
    const ChatTemplate chat(*file_->string("tokenizer.chat_template"), waiting);
    served_.tokenizer = &waiting;
    served_.chat_template = &chat;
    const auto server = OpenAiServer::start({.listen = "127.0.0.1:0"}, {}, *state_, {});
    ASSERT_TRUE(server.ok()) << server.status();
    test::HttpConnection client((*server)->port());
    client.send("POST " + path + " HTTP/1.1\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body);
    waiting.wait_until_begun();
    client.shut();
    EXPECT_TRUE(waiting.is_stopped());
    state_->preparation().stop();
  }
};

TEST_F(OpenAiPreparationTest, OfAPromptStopsWhenTheClientLeaves) {
  expect_stopped("/v1/completions", R"({"prompt": "x"})");
}

TEST_F(OpenAiPreparationTest, OfAChatStopsWhenTheClientLeaves) {
  expect_stopped("/v1/chat/completions", R"({"messages": [{"role": "user", "content": "x"}]})");
}

}  // namespace
}  // namespace pkv
