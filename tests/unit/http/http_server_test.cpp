// The HTTP server: what it takes and answers, and that no client costs another one anything.
#include "server/http/http_server.h"

#include <gmock/gmock.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "tests/support/http_client.h"

namespace pkv {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

class HttpServerTest : public ::testing::Test {
 protected:
  HttpServerTest() { start({.max_body_bytes = 4096, .max_arriving_bytes = 1 << 20}); }
  void start(HttpServerOptions options) {
    options.listen = "127.0.0.1:0";
    options.refusal = [](const HttpRefusal& refusal) {
      return HttpResponse{.status = refusal.status, .body = refusal.remedy + "\n"};
    };
    auto server =
        HttpServer::start(options, [this](const HttpRequest& request, std::shared_ptr<HttpExchange> exchange) {
          answer(request, std::move(exchange));
        });
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }
  virtual void answer(const HttpRequest& request, std::shared_ptr<HttpExchange> exchange) {
    HttpResponse response{.body = "path " + request.path + "\n"};
    if (request.method == "POST") response.body = request.body;
    if (request.path == "/big") response.body = std::string(kBig, 'x');
    if (request.path == "/bad") response = {.status = 503, .body = "not now\n"};
    exchange->respond(std::move(response), [](bool) {});
  }
  // Until it has read what was sent to it.
  void await_server() {
    for (int i = 0; i < 2; ++i) ask("GET /a HTTP/1.1\r\nConnection: close\r\n\r\n");
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

TEST_F(HttpServerTest, AnswersHeadLikeGetButWithoutTheBody) {
  start({.max_body_bytes = 4096, .keep_alive = true});
  const std::string close = "Connection: close\r\n\r\n";
  EXPECT_EQ(ask("HEAD /a HTTP/1.1\r\n\r\nHEAD /bad HTTP/1.1\r\n" + close),
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 8\r\n\r\n"
            "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 8\r\n" +
                close);
  EXPECT_THAT(ask("HEAD /a HTTP/1.1\r\nContent-Length: 4097\r\n\r\n"),
              AllOf(StartsWith("HTTP/1.1 413 "), ::testing::EndsWith(close)));
  EXPECT_THAT(ask("HEAD /a HTTP/1.1\r\n\r\nGET /a HTTP/1.1\r\n" + close), ::testing::EndsWith("path /a\n"));
}

TEST_F(HttpServerTest, ATargetMayNameTheServer) {
  const auto path = [this](const std::string& target) {
    const std::string reply = ask("GET " + target + " HTTP/1.1\r\nHost: x\r\n\r\n");
    return reply.substr(reply.find("\r\n\r\n") + 4);
  };
  EXPECT_EQ(path("http://127.0.0.1:8000/a/b?c=/d"), "path /a/b\n");
  EXPECT_EQ(path("HTTP://x?a=/b"), "path /\n");
  EXPECT_EQ(path("/a://b/c"), "path /a://b/c\n");
}

TEST_F(HttpServerTest, ARequestMayComeInPieces) {
  test::HttpConnection connection(server_->port());
  for (const char* piece : {"GE", "T /a HT", "TP/1.1\r\nHost: x\r", "\n\r"}) connection.send(piece);
  EXPECT_THAT(connection.ask("\n"), ::testing::EndsWith("path /a\n"));
}

TEST_F(HttpServerTest, RefusesWhatItDoesNotSpeak) {
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

TEST_F(HttpServerTest, BodiesAreTakenUpToTheirLimit) {
  const auto post = [this](const std::string& rest) { return ask("POST /a HTTP/1.1\r\n" + rest); };
  EXPECT_THAT(post("Content-Length: 3\r\n\r\nabc"), ::testing::EndsWith("\r\n\r\nabc"));
  EXPECT_THAT(post("Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"), ::testing::EndsWith("\r\n\r\nabc"));
  EXPECT_THAT(post("Content-Length: 4097\r\n\r\n"), StartsWith("HTTP/1.1 413 "));
  EXPECT_THAT(post("Transfer-Encoding: chunked\r\n\r\n2000\r\n" + std::string(0x2000, 'x')),
              StartsWith("HTTP/1.1 413 "));
  EXPECT_THAT(post("Transfer-Encoding: chunked\r\n\r\nzz\r\n"), StartsWith("HTTP/1.1 400 "));
  for (const char* expected : {"100-continue", "100-Continue"}) {
    EXPECT_THAT(
        post("Content-Length: 3\r\nExpect: " + std::string(expected) + "\r\n\r\nabc"),
        AllOf(StartsWith("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n"), ::testing::EndsWith("\r\n\r\nabc")));
  }
}

TEST_F(HttpServerTest, EncodedBodiesAreRefused) {
  const auto post = [this](const std::string& rest) { return ask("POST /a HTTP/1.1\r\nContent-Encoding: " + rest); };
  EXPECT_THAT(post("gzip\r\nContent-Length: 3\r\n\r\nabc"),
              AllOf(StartsWith("HTTP/1.1 415 "), HasSubstr("Content-Encoding")));
  EXPECT_THAT(post("identity\r\nContent-Encoding: br\r\nContent-Length: 3\r\n\r\nabc"), StartsWith("HTTP/1.1 415 "));
  EXPECT_THAT(post("Identity\r\nContent-Length: 3\r\n\r\nabc"), ::testing::EndsWith("\r\n\r\nabc"));
}

TEST_F(HttpServerTest, OfTooManyBodiesTheOneThatStandsStillMakesRoom) {
  start({.max_body_bytes = 4096, .max_arriving_bytes = 5000});
  const std::string head = "POST /a HTTP/1.1\r\nContent-Length: 4000\r\n\r\n";
  test::HttpConnection first(server_->port());
  first.send(head + std::string(3000, 'x'));
  await_server();
  EXPECT_THAT(ask(head + std::string(4000, 'x')), StartsWith("HTTP/1.1 200 "));
  EXPECT_THAT(first.ask(""), StartsWith("HTTP/1.1 503 "));
  EXPECT_THAT(ask(head + std::string(4000, 'x')), StartsWith("HTTP/1.1 200 "));  // its bytes count no more
}

TEST_F(HttpServerTest, OfTooManyBodiesThoseOfTheNetworkThatSendsMostMakeRoom) {
  start({.max_body_bytes = 4096, .max_arriving_bytes = 5000});
  const std::string head = "POST /a HTTP/1.1\r\nContent-Length: 4000\r\n\r\n";
  test::HttpConnection small(server_->port());
  small.send(head + std::string(1000, 'x'));
  await_server();
  test::HttpConnection first(server_->port(), "127.0.0.2"), second(server_->port(), "127.0.0.2");
  first.send(head + std::string(2000, 'x'));
  await_server();
  second.send(head + std::string(2500, 'x'));
  EXPECT_THAT(first.ask(""), StartsWith("HTTP/1.1 503 "));
  EXPECT_THAT(second.ask(std::string(1500, 'x')), StartsWith("HTTP/1.1 200 "));
  EXPECT_THAT(small.ask(std::string(3000, 'x')), StartsWith("HTTP/1.1 200 "));
}

TEST_F(HttpServerTest, BodiesThatNobodyWantsAreNotWaitedFor) {
  start({.max_body_bytes = 4096,
         .max_arriving_bytes = 5000,
         .keep_alive = true,
         .wants_body = [](const HttpRequest& head) { return head.path == "/a" && head.authorization == "me"; }});
  const std::string rest = " HTTP/1.1\r\nContent-Length: 3\r\nExpect: 100-continue\r\n";
  EXPECT_THAT(ask("POST /a" + rest + "\r\n"),
              AllOf(StartsWith("HTTP/1.1 200 "), HasSubstr("Content-Length: 0\r\nConnection: close\r\n")));
  EXPECT_THAT(ask("GET /b" + rest + "Authorization: me\r\n\r\n"), ::testing::EndsWith("path /b\n"));
  EXPECT_THAT(ask("POST /a" + rest + "Authorization: me\r\nConnection: close\r\n\r\nabc"),
              StartsWith("HTTP/1.1 100 Continue\r\n"));
}

TEST_F(HttpServerTest, ConnectionsAreKeptWhereBothSidesWant) {
  start({.keep_alive = true});
  const std::string reply =
      ask("GET /a HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\n\r\nGET /c HTTP/1.1\r\nConnection: close\r\n\r\nGET /d "
          "HTTP/1.1\r\n\r\n");
  EXPECT_THAT(reply, AllOf(HasSubstr("path /a\n"), HasSubstr("path /b\n"), ::testing::EndsWith("path /c\n")));
  EXPECT_THAT(ask("GET /a HTTP/1.0\r\n\r\n"), HasSubstr("\r\nConnection: close\r\n"));
}

TEST_F(HttpServerTest, IdleConnectionsEnd) {
  start({.idle_seconds = 0.05, .keep_alive = true});
  EXPECT_EQ(ask(""), "");
  EXPECT_EQ(ask("GET /a HTTP/1.1\r\n"), "");
  EXPECT_THAT(ask("GET /a HTTP/1.1\r\n\r\n"), ::testing::EndsWith("path /a\n"));
}

// Keeps its exchanges, to be answered by the test.
class SlowAnswersTest : public HttpServerTest {
 protected:
  void answer(const HttpRequest&, std::shared_ptr<HttpExchange> exchange) override {
    exchange->when_gone([this] { ++gone_; });
    const std::lock_guard lock(mutex_);
    exchanges_.push_back(std::move(exchange));
    changed_.notify_all();
  }
  ~SlowAnswersTest() override { server_.reset(); }
  std::shared_ptr<HttpExchange> exchange(size_t index) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return exchanges_.size() > index; });
    return exchanges_[index];
  }
  static bool wait(const std::function<void(HttpExchange::Done)>& send) {
    std::promise<bool> sent;
    send([&](bool ok) { sent.set_value(ok); });
    return sent.get_future().get();
  }

  std::atomic<int> gone_ = 0;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::shared_ptr<HttpExchange>> exchanges_;
};

TEST_F(SlowAnswersTest, AnAnswerMayComeInParts) {
  start({.keep_alive = true});
  std::string reply;
  std::thread client([&] { reply = ask("GET /a HTTP/1.1\r\nConnection: close\r\n\r\n"); });
  const auto open = exchange(0);
  EXPECT_TRUE(wait([&](auto done) { open->begin({.body = "one,"}, done); }));
  EXPECT_TRUE(wait([&](auto done) { open->write("two,", done); }));
  EXPECT_TRUE(wait([&](auto done) { open->end("three", done); }));
  EXPECT_FALSE(wait([&](auto done) { open->write("more", done); }));  // it is over
  client.join();
  EXPECT_THAT(reply, HasSubstr("\r\nTransfer-Encoding: chunked\r\n"));
  EXPECT_THAT(reply, ::testing::EndsWith("\r\n\r\n4\r\none,\r\n4\r\ntwo,\r\n5\r\nthree\r\n0\r\n\r\n"));
  EXPECT_EQ(gone_, 0);
}

TEST_F(SlowAnswersTest, OldClientsGetPartsToTheEndOfTheConnection) {
  std::string reply;
  std::thread client([&] { reply = ask("GET /a HTTP/1.0\r\n\r\n"); });
  const auto open = exchange(0);
  EXPECT_TRUE(wait([&](auto done) { open->begin({.body = "one,"}, done); }));
  EXPECT_TRUE(wait([&](auto done) { open->end("two", done); }));
  client.join();
  EXPECT_THAT(reply, ::testing::EndsWith("\r\n\r\none,two"));
}

TEST_F(SlowAnswersTest, AClientThatLeavesIsNoticedAtOnce) {
  {
    test::HttpConnection client(server_->port());
    client.send("GET /a HTTP/1.1\r\n\r\n");
    exchange(0);
    EXPECT_EQ(gone_, 0);
  }
  while (gone_ == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  EXPECT_FALSE(wait([&](auto done) { exchange(0)->respond({}, done); }));
  server_->await_answers(60);  // there are none
}

TEST_F(SlowAnswersTest, AClientThatSentMoreAndLeavesIsNoticedAtOnce) {
  start({.keep_alive = true});
  {
    test::HttpConnection client(server_->port());
    client.send("GET /a HTTP/1.1\r\n\r\n\r\n");
    exchange(0);
  }
  while (gone_ == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
}

TEST_F(SlowAnswersTest, WhoSendsMuchAheadHarmsNobody) {
  test::HttpConnection client(server_->port());
  client.send("GET /a HTTP/1.1\r\n\r\n" + std::string(10'000, 'x'));
  const auto open = exchange(0);
  test::HttpConnection other(server_->port());
  other.send("GET /b HTTP/1.1\r\n\r\n");
  exchange(1);
  client.send(std::string(30'000, 'x'));
  test::HttpConnection last(server_->port());
  last.send("GET /c HTTP/1.1\r\n\r\n");
  EXPECT_TRUE(wait([&](auto done) { exchange(2)->respond({.body = "c"}, done); }));
  EXPECT_TRUE(wait([&](auto done) { open->respond({.body = "a"}, done); }));
}

TEST_F(SlowAnswersTest, RequestsThatCameAheadAreAnsweredInTheirTurn) {
  start({.keep_alive = true});
  test::HttpConnection client(server_->port());
  client.send("GET /a HTTP/1.1\r\n\r\n");
  const auto first = exchange(0);
  client.send("GET /b HTTP/1.1\r\nConnection: close\r\n\r\n");
  test::HttpConnection others[2] = {test::HttpConnection(server_->port()), test::HttpConnection(server_->port())};
  for (size_t i = 0; i < 2; ++i) {  // then that has been read too
    others[i].send("GET /c HTTP/1.1\r\n\r\n");
    exchange(i + 1);
  }
  EXPECT_TRUE(wait([&](auto done) { first->respond({.body = "one"}, done); }));
  EXPECT_TRUE(wait([&](auto done) { exchange(3)->respond({.body = "two"}, done); }));
  EXPECT_THAT(client.ask(""), AllOf(HasSubstr("\r\n\r\none"), ::testing::EndsWith("\r\n\r\ntwo")));
}

TEST_F(SlowAnswersTest, WhoWaitsForAnAnswerIsNotPushedOut) {
  start({.max_connections = 2});
  test::HttpConnection first(server_->port()), second(server_->port());
  first.send("GET /a HTTP/1.1\r\n\r\n");
  exchange(0);
  second.send("GET /b HTTP/1.1\r\n\r\n");
  const auto open = exchange(1);
  EXPECT_THAT(ask("GET /c HTTP/1.1\r\n\r\n"), StartsWith("HTTP/1.1 503 "));
  EXPECT_TRUE(wait([&](auto done) { open->respond({.body = "b"}, done); }));
  EXPECT_THAT(second.ask(""), ::testing::EndsWith("\r\n\r\nb"));
  EXPECT_EQ(gone_, 0);
}

TEST_F(HttpServerTest, WhoStillReadsItsAnswerIsNotPushedOut) {
  start({.max_connections = 1});
  test::HttpConnection first(server_->port());
  first.send("GET /big HTTP/1.1\r\n\r\n");
  std::string reply = first.read();
  EXPECT_THAT(ask("GET /a HTTP/1.1\r\n\r\n"), StartsWith("HTTP/1.1 503 "));
  reply += first.ask("");
  EXPECT_EQ(reply.size() - reply.find("\r\n\r\n") - 4, kBig);
}

TEST_F(HttpServerTest, AnAddressThatIsTakenSaysSo) {
  const HttpHandler ignore = [](const HttpRequest&, const std::shared_ptr<HttpExchange>&) {};
  const auto second = HttpServer::start({.listen = "127.0.0.1:" + std::to_string(server_->port())}, ignore);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(second.status().message(), "Address already in use");
  EXPECT_FALSE(HttpServer::start({.listen = "203.0.113.1:0"}, ignore).ok());
}

TEST(HttpServer, AllAddressesAreThoseOfBothKinds) {
  const HttpHandler tell = [](const HttpRequest& request, const std::shared_ptr<HttpExchange>& exchange) {
    exchange->respond({.body = request.peer}, [](bool) {});
  };
  for (const char* everywhere : {"0.0.0.0:0", "[::]:0"}) {
    const auto server = HttpServer::start({.listen = everywhere}, tell);
    if (!server.ok()) continue;  // [::] on a machine without IPv6
    EXPECT_THAT(test::http_get((*server)->port(), "/"), HasSubstr("\r\n\r\n127.0.0.1:"));
    const int six = ::socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in6 address{.sin6_family = AF_INET6, .sin6_addr = in6addr_loopback};
    if (::bind(six, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) {  // the machine has IPv6
      address.sin6_port = htons(static_cast<uint16_t>((*server)->port()));
      EXPECT_EQ(::connect(six, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0) << everywhere;
    }
    ::close(six);
  }
}

}  // namespace
}  // namespace pkv
