// The port of OpenAI's API without a model behind it.
#include "server/http/openai_server.h"

#include <gmock/gmock.h>

#include "tests/support/http_client.h"

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

}  // namespace
}  // namespace pkv
