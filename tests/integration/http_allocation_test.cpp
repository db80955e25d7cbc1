// Memory runs out at any allocation of the HTTP server's thread, from the first byte of a connection to its end: the
// client gets its answer, an error or a closed connection, nothing of the call stays, and whoever comes next is
// answered.
#include <gmock/gmock.h>
#include <unistd.h>

#include <string>

#include "absl/time/clock.h"
#include "server/http/openai_server.h"
#include "tests/integration/answering_engine.h"
#include "tests/support/failing_new.h"
#include "tests/support/http_client.h"
#include "tests/unit/api/call_fixture.h"

namespace pkv {
namespace {

using ::testing::AnyOf;
using ::testing::EndsWith;
using ::testing::IsEmpty;
using ::testing::StartsWith;

class HttpAllocationTest : public CallTest {
 protected:
  static constexpr unsigned kPatienceSeconds = 300;

  HttpAllocationTest() {
    alarm(kPatienceSeconds);  // ends the test where a connection is forgotten, whose client waits for good
    limits({.preparation_threads = 1, .max_waiting = 1});
    served_.engine = &answering_;
    auto server = OpenAiServer::start({.listen = "127.0.0.1:0", .max_connections = 1, .idle_seconds = 0.2}, {}, *state_,
                                      {.live = [this] { return arm(); }, .ready = [this] { return disarm(); }});
    EXPECT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }
  ~HttpAllocationTest() override {
    await_end();
    EXPECT_TRUE(state_->calls().rows().empty());
    alarm(0);
  }

  // Of the probes, on the server's thread.
  absl::Status arm() const {
    if (at_ >= 0) test::fail_allocations(at_, 1);
    return absl::OkStatus();
  }
  absl::Status disarm() {
    came_ = at_ >= 0 && test::failures_left() == 0;
    test::fail_allocations(0, 0);
    return absl::OkStatus();
  }
  std::string ask(const std::string& text) const { return test::HttpConnection(server_->port()).ask(text); }
  // Of a good server: its deadline, which is for connections that are lost, may end one whose client is slow.
  std::string ask_until_answered(const std::string& text) const {
    std::string reply;
    for (int time = 0; time < 10 && reply.empty(); ++time) reply = ask(text);
    return reply;
  }
  std::string get(const std::string& path) const {
    return ask("GET " + path + " HTTP/1.1\r\nConnection: close\r\n\r\n");
  }
  // Of every call, where a minute is enough for it.
  void await_end() {
    const absl::Time end = absl::Now() + absl::Minutes(1);
    while (state_->open_calls() > 0 && absl::Now() < end) absl::SleepFor(absl::Milliseconds(1));
    EXPECT_EQ(state_->open_calls(), 0);
  }
  static std::string post(const std::string& body) {
    return "POST /v1/completions HTTP/1.1\r\nConnection: close\r\nContent-Length: " + std::to_string(body.size()) +
           "\r\n\r\n" + body;
  }
  void run_out_everywhere(const std::string& request, const std::string& end_of_reply) {
    int lost = 0;
    for (at_ = 0, came_ = true; came_; ++at_) {
      get("/healthz");
      const std::string reply = ask(request);
      if (!reply.ends_with(end_of_reply)) ++lost;
      while (!get("/readyz").starts_with("HTTP/1.1 200 ")) {
      }
      EXPECT_THAT(reply, AnyOf(IsEmpty(), StartsWith("HTTP/1.1 ")));
      await_end();
      EXPECT_THAT(ask_until_answered(request), AllOf(StartsWith("HTTP/1.1 200 "), EndsWith(end_of_reply)));
      ASSERT_FALSE(HasFailure()) << "at allocation " << at_;
    }
    EXPECT_GT(lost, 3);
  }

  AnsweringEngine answering_;
  std::atomic<int64_t> at_ = 0;
  std::atomic<bool> came_ = false;
  std::unique_ptr<OpenAiServer> server_;
};

TEST_F(HttpAllocationTest, OfAnAnswerInOnePiece) {
  run_out_everywhere(post(R"({"prompt": "hello", "max_tokens": 1})"), "}");
}

TEST_F(HttpAllocationTest, OfAStream) {
  run_out_everywhere(post(R"({"prompt": "hello", "max_tokens": 1, "stream": true})"), "data: [DONE]\n\n\r\n0\r\n\r\n");
}

}  // namespace
}  // namespace pkv
