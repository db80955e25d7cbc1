// The small HTTP server: what it answers, and that no client costs another one anything.
#include "server/http/http_server.h"

#include <gmock/gmock.h>

#include <memory>
#include <vector>

#include "tests/support/http_client.h"

namespace pkv {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

class HttpServerTest : public ::testing::Test {
 protected:
  HttpServerTest() {
    auto server = HttpServer::start("127.0.0.1:0", [](const std::string& path) -> HttpResponse {
      if (path == "/big") return {.body = std::string(kBig, 'x')};
      if (path == "/bad") return {.status = 503, .body = "not now\n"};
      return {.body = "path " + path + "\n"};
    });
    EXPECT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }
  std::string ask(const std::string& text) { return test::HttpConnection(server_->port()).ask(text); }

  static constexpr size_t kBig = size_t{8} << 20;
  std::unique_ptr<HttpServer> server_;
};

TEST_F(HttpServerTest, AnswersGet) {
  EXPECT_EQ(ask("GET /a HTTP/1.1\r\nHost: x\r\n\r\n"),
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 8\r\nConnection: "
            "close\r\n\r\npath /a\n");
  EXPECT_THAT(ask("GET /a?b=c HTTP/1.0\r\n\r\n"), ::testing::EndsWith("\r\n\r\npath /a\n"));
  EXPECT_THAT(ask("GET /bad HTTP/1.1\r\n\r\n"), StartsWith("HTTP/1.1 503 Service Unavailable\r\n"));
}

TEST_F(HttpServerTest, ARequestMayComeInPieces) {
  test::HttpConnection connection(server_->port());
  for (const char* piece : {"GE", "T /a HT", "TP/1.1\r\nHost: x\r", "\n\r"}) connection.send(piece);
  EXPECT_THAT(connection.ask("\n"), ::testing::EndsWith("path /a\n"));
}

TEST_F(HttpServerTest, RefusesWhatItDoesNotSpeak) {
  const std::string post = ask("POST /a HTTP/1.1\r\nContent-Length: 2000\r\n\r\n" + std::string(2000, 'x'));
  EXPECT_THAT(post, StartsWith("HTTP/1.1 405 Method Not Allowed\r\n"));
  EXPECT_THAT(post, HasSubstr("\r\nAllow: GET\r\n"));
  for (const char* text :
       {"\r\n\r\n", "GET\r\n\r\n", "GET /a\r\n\r\n", "GET /a SPDY/3\r\n\r\n", "\x16\x03\x01 x\r\n\r\n"}) {
    EXPECT_THAT(ask(text), StartsWith("HTTP/1.1 400 Bad Request\r\n")) << text;
  }
  EXPECT_THAT(ask("GET /a HTTP/1.1\r\nX: " + std::string(9000, 'x')), StartsWith("HTTP/1.1 431 "));
}

TEST_F(HttpServerTest, LargeAnswersArriveWhole) {
  const std::string reply = ask("GET /big HTTP/1.1\r\n\r\n");
  EXPECT_EQ(reply.size() - reply.find("\r\n\r\n") - 4, kBig);
}

TEST_F(HttpServerTest, SilentAndSlowClientsAreInNobodysWay) {
  std::vector<std::unique_ptr<test::HttpConnection>> others;
  for (int i = 0; i < 100; ++i) {
    others.push_back(std::make_unique<test::HttpConnection>(server_->port()));
    if (i % 3 == 1) others.back()->send("GET /a HTTP/1.1\r\n");        // and no more
    if (i % 3 == 2) others.back()->send("GET /big HTTP/1.1\r\n\r\n");  // and reads nothing
    if (i % 20 == 0) {
      EXPECT_THAT(ask("GET /a HTTP/1.1\r\n\r\n"), ::testing::EndsWith("path /a\n")) << i;
    }
  }
  EXPECT_THAT(ask("GET /a HTTP/1.1\r\n\r\n"), ::testing::EndsWith("path /a\n"));
  server_.reset();  // does not wait for them
}

TEST_F(HttpServerTest, AnAddressThatIsTakenSaysSo) {
  const auto second = HttpServer::start("127.0.0.1:" + std::to_string(server_->port()),
                                        [](const std::string&) { return HttpResponse(); });
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(second.status().message(), "Address already in use");
  EXPECT_FALSE(HttpServer::start("203.0.113.1:0", [](const std::string&) { return HttpResponse(); }).ok());
}

}  // namespace
}  // namespace pkv
