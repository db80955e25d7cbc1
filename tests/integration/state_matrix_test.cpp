// Whatever way a request comes and however it ends, nothing of it stays: no page, no reservation, no place in the
// queue, no mailbox, no reactor.
#include <future>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>
#include <tuple>

#include "tests/integration/cut_wire.h"
#include "tests/integration/raw_call.h"
#include "tests/integration/server_fixture.h"
#include "tests/support/http_client.h"

namespace pkv {
namespace {

using Json = nlohmann::json;

enum class Way : uint8_t { kUnary, kStream, kHttp, kHttpStream };
enum class End : uint8_t { kOk, kCancel, kDeadline, kError, kKilled, kSlowReader, kShutdown };

constexpr std::array kWays = {"Unary", "Stream", "Http", "HttpStream"};
constexpr std::array kEnds = {"Ok", "Cancel", "Deadline", "Error", "Killed", "SlowReader", "Shutdown"};
constexpr std::chrono::milliseconds kPatience(100);
constexpr int kServing = 1;  // of a HealthCheckResponse

// One request that is under way.
class Caller {
 public:
  virtual ~Caller() = default;
  virtual void leave() = 0;
  virtual bool answered() = 0;  // waits: whether the whole answer came
};

class GrpcCaller final : public Caller {
 public:
  GrpcCaller(int port, Way way, const pb::GenerateRequest& request, bool patient)
      : stub_(pb::GenerationService::NewStub(
            grpc::CreateChannel("127.0.0.1:" + std::to_string(port), grpc::InsecureChannelCredentials()))) {
    if (!patient) context_.set_deadline(std::chrono::system_clock::now() + kPatience);
    answer_ = std::async(std::launch::async, [this, way, request] { return ask(way, request); });
  }
  void leave() override { context_.TryCancel(); }
  bool answered() override { return answer_.get(); }

 private:
  bool ask(Way way, const pb::GenerateRequest& request) {
    if (way == Way::kUnary) {
      pb::GenerateResponse response;
      return stub_->Generate(&context_, request, &response).ok();
    }
    const auto reader = stub_->GenerateStream(&context_, request);
    for (pb::GenerateStreamResponse event; reader->Read(&event);) {
    }
    return reader->Finish().ok();
  }
  std::unique_ptr<pb::GenerationService::Stub> stub_;
  grpc::ClientContext context_;
  std::future<bool> answer_;
};

class HttpCaller final : public Caller {
 public:
  HttpCaller(int port, Way way, const std::string& text) : connection_(port) {
    connection_.send(text);
    answer_ = std::async(std::launch::async, [this, way] {
      std::string reply;
      for (std::string part; !(part = connection_.read()).empty();) reply += part;
      return way == Way::kHttp ? reply.starts_with("HTTP/1.1 200 ") : reply.find("data: [DONE]") != std::string::npos;
    });
  }
  void leave() override { connection_.shut(); }
  bool answered() override { return answer_.get(); }

 private:
  test::HttpConnection connection_;
  std::future<bool> answer_;
};

class StateMatrix : public ServerTest, public ::testing::WithParamInterface<std::tuple<Way, End>> {
 protected:
  static Way way() { return std::get<0>(GetParam()); }
  static End end() { return std::get<1>(GetParam()); }
  static bool over_http() { return way() >= Way::kHttp; }

  void start() {
    start_and_load(
        [](Config& config) {
          config.http.listen = "127.0.0.1:0";
          if (end() != End::kSlowReader) return;
          config.server.max_unread_seconds = 0.2;
          config.http.idle_seconds = 0.3;
        },
        {.hearing_time = end() == End::kShutdown ? absl::InfiniteDuration() : AppOptions().hearing_time});
    before_ = stats().memory();
  }
  int port() const { return over_http() ? app_->http_port() : app_->port(); }

  static std::string http_text(const pb::GenerateRequest& wish) {
    Json body = {{"prompt", wish.prompt()},
                 {"max_tokens", wish.sampling().max_tokens()},
                 {"temperature", 0},
                 {"ignore_eos", true},
                 {"stream", way() == Way::kHttpStream}};
    if (wish.output().top_logprobs() > 0) body["logprobs"] = wish.output().top_logprobs();
    if (wish.has_cache_policy()) {
      body["cache_policy"] = {{"snapkv", Json::object()},
                              {"budget",
                               {{"min_recall", wish.cache_policy().budget().min_recall()},
                                {"max_bytes", wish.cache_policy().budget().max_bytes()}}}};
    }
    const std::string text = body.dump();
    return "POST /v1/completions HTTP/1.1\r\nConnection: close\r\nContent-Length: " + std::to_string(text.size()) +
           "\r\n\r\n" + text;
  }
  std::unique_ptr<Caller> call(const pb::GenerateRequest& wish, int port, bool patient = true) {
    if (over_http()) return std::make_unique<HttpCaller>(port, way(), http_text(wish));
    return std::make_unique<GrpcCaller>(port, way(), wish, patient);
  }
  bool answered(const pb::GenerateRequest& wish) { return call(wish, port())->answered(); }
  bool eventually_running() {
    return eventually([this] { return stats().memory().kv_live_bytes() > 0; });
  }
  // What ends when the prompt has been read.
  pb::GenerateRequest out_of_reach() {
    pb::GenerateRequest wish = request("some prompt of a number of tokens, so that there is something to drop", 4);
    wish.mutable_cache_policy()->mutable_snapkv();
    pb::CacheBudget& budget = *wish.mutable_cache_policy()->mutable_budget();
    budget.set_min_recall(0.999);
    budget.set_max_bytes(1);
    pb::GenerateResponse response;
    budget.set_max_bytes(std::stoull(metadata(generate(wish, response)).at("smallest_budget_bytes")));
    return wish;
  }

  void end_by_itself() { EXPECT_TRUE(answered(request("hello", 5))); }
  void end_by_error() {
    EXPECT_FALSE(answered(out_of_reach()));
    EXPECT_FALSE(answered(request(std::string(kContext, 'x'), 5)));  // refused
  }
  void end_by_leaving() {
    const std::unique_ptr<Caller> caller = call(request("hello", kEndless), port());
    EXPECT_TRUE(eventually_running());
    caller->leave();
    EXPECT_FALSE(caller->answered());
  }
  void end_by_deadline() { EXPECT_FALSE(call(request("hello", kEndless), port(), /*patient=*/false)->answered()); }
  void end_by_kill() {
    test::CutWire wire(port());
    const std::unique_ptr<Caller> caller = call(request("hello", kEndless), wire.port());
    EXPECT_TRUE(eventually_running());
    wire.cut();
    EXPECT_FALSE(caller->answered());
  }
  void end_by_not_reading() {
    pb::GenerateRequest chatty = request("hello", over_http() ? 6000 : 1500);  // more than sockets and windows take
    chatty.mutable_output()->set_top_logprobs(20);
    std::optional<test::HttpConnection> connection;
    std::optional<UnreadCall> unread;
    if (over_http()) {
      connection.emplace(port()).send(http_text(chatty));
    } else {
      const std::string method = way() == Way::kUnary ? "Generate" : "GenerateStream";
      unread.emplace(app_->port(), "/pyramidkv.v1.GenerationService/" + method, chatty.SerializeAsString());
    }
    EXPECT_TRUE(eventually_running());
    EXPECT_TRUE(eventually([this] { return app_->open_calls() == 0; }));  // while the client is still there
    if (!over_http()) EXPECT_EQ(stats().totals().rejected(), 1u);
  }
  // Until who watches the health leaves, a server that has drained still says what is left.
  void end_by_shutdown() {
    HealthWatch watch(channel_, "");
    EXPECT_EQ(watch.next(), kServing);
    const std::unique_ptr<Caller> caller = call(request("hello", kEndless), port());
    EXPECT_TRUE(eventually_running());
    std::thread stop([this] { EXPECT_TRUE(app_->stop(absl::Now()).ok()); });
    EXPECT_FALSE(caller->answered());
    expect_nothing_left();
    watch.cancel();
    stop.join();
  }
  void expect_nothing_left() {
    EXPECT_TRUE(eventually([this] { return app_->open_calls() == 0; })) << app_->open_calls();
    EXPECT_EQ(app_->open_requests(), 0u);
    EXPECT_TRUE(eventually([this] {
      const pb::Stats now = stats();
      return now.scheduler().running() == 0 && now.scheduler().waiting() == 0 &&
             now.memory().kv_live_bytes() == before_.kv_live_bytes() &&
             now.memory().kv_reserved_bytes() == before_.kv_reserved_bytes();
    })) << stats().DebugString();
  }

  void provoke() {
    switch (end()) {
      case End::kOk:
        return end_by_itself();
      case End::kCancel:
        return end_by_leaving();
      case End::kDeadline:
        return end_by_deadline();
      case End::kError:
        return end_by_error();
      case End::kKilled:
        return end_by_kill();
      case End::kSlowReader:
        return end_by_not_reading();
      case End::kShutdown:
        return end_by_shutdown();
    }
  }

  pb::MemoryStats before_;
};

TEST_P(StateMatrix, NothingStays) {
  ASSERT_NO_FATAL_FAILURE(start());
  provoke();
  if (end() == End::kShutdown) return;  // it was looked at before the server's end
  expect_nothing_left();
  EXPECT_TRUE(answered(request("hello", 2)));
}

std::string name(const ::testing::TestParamInfo<std::tuple<Way, End>>& info) {
  return std::string(kWays[static_cast<size_t>(std::get<0>(info.param))]) +
         kEnds[static_cast<size_t>(std::get<1>(info.param))];
}

INSTANTIATE_TEST_SUITE_P(Serving, StateMatrix,
                         ::testing::Combine(::testing::Values(Way::kUnary, Way::kStream, Way::kHttp, Way::kHttpStream),
                                            ::testing::Values(End::kOk, End::kCancel, End::kError, End::kKilled,
                                                              End::kSlowReader, End::kShutdown)),
                         name);
// OpenAI's API has no deadlines: whoever has waited for long enough leaves, which is kCancel.
INSTANTIATE_TEST_SUITE_P(ServingByGrpc, StateMatrix,
                         ::testing::Combine(::testing::Values(Way::kUnary, Way::kStream),
                                            ::testing::Values(End::kDeadline)),
                         name);

}  // namespace
}  // namespace pkv
