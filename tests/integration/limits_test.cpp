// What a server takes of its callers at most, by its configuration.
#include <gmock/gmock.h>
#include <grpcpp/generic/generic_stub.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <future>
#include <iterator>

#include "tests/integration/cut_wire.h"
#include "tests/integration/raw_call.h"
#include "tests/integration/server_fixture.h"

namespace pkv {
namespace {

using ::testing::HasSubstr;

class LimitsTest : public ServerTest {
 protected:
  uint64_t slow_readers() { return stats().totals().rejected(); }
  // The status of a generation over a connection of its own, and the connection.
  std::pair<grpc::StatusCode, std::shared_ptr<grpc::Channel>> ask_anew() {
    grpc::ChannelArguments own;
    own.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    const auto channel =
        grpc::CreateCustomChannel("127.0.0.1:" + std::to_string(app_->port()), grpc::InsecureChannelCredentials(), own);
    const auto stub = pb::GenerationService::NewStub(channel);
    grpc::ClientContext context;
    pb::GenerateResponse reply;
    return {stub->Generate(&context, request("hello", 2), &reply).error_code(), channel};
  }
};

TEST_F(LimitsTest, AMessageThatIsTooLongIsRefusedByItsSize) {
  start_and_load([](Config& config) { config.server.max_message_bytes = 1 << 16; });
  pb::GenerateResponse reply;
  const grpc::Status status = generate(request(std::string(1 << 17, 'a'), 2), reply);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(status.error_message(), HasSubstr("65536"));
  EXPECT_TRUE(generate(request("hello", 2), reply).ok());
}

TEST_F(LimitsTest, CallsBeyondAConnectionsStreamsWait) {
  start_and_load([](Config& config) { config.server.max_streams = 1; });
  OpenStream first(*generation_, request("hello", kEndless));
  ASSERT_TRUE(first.read_to_delta());
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(200));
  pb::GenerateResponse reply;
  EXPECT_EQ(generation_->Generate(&context, request("hello", 2), &reply).error_code(),
            grpc::StatusCode::DEADLINE_EXCEEDED);
  first.cancel();
  first.finish();
  EXPECT_TRUE(generate(request("hello", 2), reply).ok());
}

TEST_F(LimitsTest, ConnectionsBeyondTheLimitAreTurnedAway) {
  start_and_load([](Config& config) { config.server.max_connections = 2; });
  pb::GenerateResponse reply;
  ASSERT_TRUE(generate(request("hello", 2), reply).ok());  // the first
  auto second = ask_anew();
  EXPECT_EQ(second.first, grpc::StatusCode::OK);
  EXPECT_EQ(ask_anew().first, grpc::StatusCode::UNAVAILABLE);
  second.second.reset();
  EXPECT_TRUE(eventually([&] { return ask_anew().first == grpc::StatusCode::OK; }));
  EXPECT_TRUE(generate(request("hello", 2), reply).ok());
}

TEST_F(LimitsTest, ConnectionsWithoutACallMakeRoomInTime) {
  start_and_load([](Config& config) { config.server.max_connections = 1; }, {.idle_time = absl::Milliseconds(200)});
  pb::GenerateResponse reply;
  ASSERT_TRUE(generate(request("hello", 2), reply).ok());
  EXPECT_TRUE(eventually([&] { return ask_anew().first == grpc::StatusCode::OK; }));
  EXPECT_TRUE(eventually([&] { return generate(request("hello", 2), reply).ok(); }));
}

// Each is a thread of gRPC's.
TEST_F(LimitsTest, OpenReflectionsAreBounded) {
  start_and_load();
  const auto threads = [] {
    const std::filesystem::directory_iterator tasks("/proc/self/task");
    return std::distance(begin(tasks), end(tasks));
  };
  pb::GenerateResponse reply;
  ASSERT_TRUE(generate(request("hello", 2), reply).ok());
  const auto before = threads();
  std::vector<std::unique_ptr<OpenReflection>> open;
  for (int i = 0; i < 60; ++i) open.push_back(std::make_unique<OpenReflection>(channel_));
  EXPECT_TRUE(eventually([&] {
    return std::ranges::any_of(open,
                               [](const auto& one) { return one->code() == grpc::StatusCode::RESOURCE_EXHAUSTED; });
  }));
  EXPECT_LT(threads(), before + 30);
  EXPECT_TRUE(generate(request("hello", 2), reply).ok());
  open.clear();
  EXPECT_TRUE(eventually([&] { return !list_services(channel_).empty(); }));
}

TEST_F(LimitsTest, WatchersBeyondTheLimitAreRefusedByItsName) {
  start_and_load([](Config& config) { config.server.max_watchers = 1; });
  grpc::ClientContext first, second;
  const auto watching = stats_->WatchStats(&first, {});
  pb::WatchStatsResponse message;
  ASSERT_TRUE(watching->Read(&message));
  const auto refused = stats_->WatchStats(&second, {});
  EXPECT_FALSE(refused->Read(&message));
  const grpc::Status status = refused->Finish();
  EXPECT_EQ(reason(status), "TOO_MANY_WATCHERS");
  EXPECT_THAT(status.error_message(), HasSubstr("server.max_watchers"));
  first.TryCancel();
  while (watching->Read(&message)) {
  }
  watching->Finish();
}

// gRPC has no limit of its own for these.
TEST_F(LimitsTest, WhoDoesNotReadIsCutOffInTime) {
  start_and_load([](Config& config) {
    config.server.max_unread_seconds = 0.2;
    config.server.max_unread_bytes = uint64_t{1} << 30;
  });
  pb::GenerateRequest chatty = request("hello", 6000);
  chatty.mutable_output()->set_top_logprobs(20);
  pb::TokenizeRequest tokenize;
  tokenize.set_text(std::string(1 << 20, 'x'));
  const std::string service = "/pyramidkv.v1.GenerationService/";
  UnreadCall stream(app_->port(), service + "GenerateStream", chatty.SerializeAsString());
  UnreadCall unary(app_->port(), service + "Generate", chatty.SerializeAsString());
  UnreadCall without_engine(app_->port(), service + "Tokenize", tokenize.SerializeAsString());
  tokenize.set_text("short");  // such a reply is given to gRPC at once, and its end is told without changing threads
  ClosedWindowCall at_once(app_->port(), service + "Tokenize", tokenize.SerializeAsString());
  ClosedWindowCall without_text(app_->port(), "/pyramidkv.v1.ModelService/ListModels", "");
  EXPECT_TRUE(eventually([&] { return slow_readers() == 5; }))
      << stats().totals().DebugString() << app_->open_calls() << " calls are open";
  EXPECT_TRUE(eventually_idle());
  EXPECT_TRUE(eventually([&] { return app_->open_calls() == 0; }));
  EXPECT_EQ(stats().totals().requests_by_code().at("RESOURCE_EXHAUSTED"), 1u);  // the stream; the other was complete
  pb::GenerateResponse reply;
  EXPECT_TRUE(generate(request("hello", 2), reply).ok());
}

// Known at admission, not when all the work is done.
TEST_F(LimitsTest, PositionsThatNoReplyCouldHoldAreRefusedAtOnce) {
  start_and_load([](Config& config) { config.server.max_message_bytes = 1 << 16; });
  pb::GenerateRequest large = request(std::string(8000, 'x'), 2);
  large.set_cache_report(pb::CACHE_REPORT_DETAIL_POSITIONS);
  pb::GenerateResponse reply;
  const grpc::Status status = generate(large, reply);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(reason(status), "REPLY_TOO_LARGE");
  EXPECT_THAT(status.error_message(), AllOf(HasSubstr("cache_report: "), HasSubstr("server.max_message_bytes")));
  EXPECT_EQ(metadata(status).at("max"), "65536");
  EXPECT_EQ(policy_stats("full").requests_total(), 0u);

  large.mutable_cache_policy()->mutable_snapkv();
  large.mutable_cache_policy()->mutable_budget()->set_tokens(2000);
  ASSERT_TRUE(generate(large, reply).ok());
  EXPECT_GT(reply.ByteSizeLong(), size_t{30'000});
  large.mutable_cache_policy()->mutable_budget()->set_tokens(4200);
  const grpc::Status beyond = generate(large, reply);
  EXPECT_EQ(reason(beyond), "REPLY_TOO_LARGE");
  EXPECT_NEAR(std::stod(metadata(beyond).at("got")), 4 * 2 * 4200 * 2, 100);  // lanes, lists, entries, bytes
}

// Known at admission, too; a stream has no such limit.
TEST_F(LimitsTest, LogprobsThatNoReplyCouldHoldAreRefusedAtOnce) {
  start_and_load([](Config& config) { config.server.max_message_bytes = 1 << 16; });
  pb::GenerateRequest chatty = request("hello", 500);
  chatty.mutable_output()->set_top_logprobs(20);
  pb::GenerateResponse reply;
  const grpc::Status status = generate(chatty, reply);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(reason(status), "REPLY_TOO_LARGE");
  EXPECT_THAT(status.error_message(),
              AllOf(HasSubstr("output.top_logprobs: "), HasSubstr("server.max_message_bytes"), HasSubstr("stream")));
  EXPECT_GT(std::stoull(metadata(status).at("got")), std::stoull(metadata(status).at("max")));
  EXPECT_EQ(policy_stats("full").requests_total(), 0u);
  OpenStream stream(*generation_, chatty);
  EXPECT_TRUE(stream.read_to_delta());
  stream.cancel();
  stream.finish();
}

TEST_F(LimitsTest, TextsAndTokensThatNoReplyCouldHoldAreRefusedByTheirField) {
  start_and_load([](Config& config) { config.server.max_message_bytes = 1 << 16; });
  pb::TokenizeRequest text;
  for (int i = 0; i < 20'000; ++i) text.mutable_text()->append("\u00e9");  // two tokens with ids above 127
  pb::TokenizeResponse tokens;
  grpc::ClientContext first, second;
  grpc::Status status = generation_->Tokenize(&first, text, &tokens);
  EXPECT_EQ(reason(status), "REPLY_TOO_LARGE");
  EXPECT_THAT(status.error_message(), AllOf(HasSubstr("text: "), HasSubstr("server.max_message_bytes")));
  pb::DetokenizeRequest ids;
  for (int i = 0; i < 30'000; ++i) ids.add_token_ids(test::kTinyEndToken);
  pb::DetokenizeResponse back;
  status = generation_->Detokenize(&second, ids, &back);
  EXPECT_EQ(reason(status), "REPLY_TOO_LARGE");
  EXPECT_THAT(status.error_message(), HasSubstr("token_ids: "));
}

// Calls whose requests arrive in part, over connections of their own.
class PartialRequests {
 public:
  // Adds some to `method` at a port, each of a request of twice as many bytes as arrive.
  void add(int count, int port, const std::string& method, size_t bytes) {
    for (int i = 0; i < count; ++i) calls_.push_back(std::make_unique<Call>(port, method, bytes));
  }
  size_t ended_for_want_of_room() const {
    return static_cast<size_t>(std::ranges::count_if(
        calls_, [](const auto& call) { return call->code == grpc::StatusCode::RESOURCE_EXHAUSTED; }));
  }

 private:
  struct Call {
    Call(int port, const std::string& method, size_t bytes)
        : wire(port, bytes),
          stub(grpc::CreateChannel("127.0.0.1:" + std::to_string(wire.port()), grpc::InsecureChannelCredentials())) {
      const grpc::Slice slice(std::string(2 * bytes, 'x'));
      request = grpc::ByteBuffer(&slice, 1);
      stub.UnaryCall(&context, method, grpc::StubOptions(), &request, &response, [this](const grpc::Status& status) {
        code = status.error_code();
        end.set_value();
      });
    }
    ~Call() {
      context.TryCancel();
      end.get_future().wait();
    }

    test::CutWire wire;
    grpc::GenericStub stub;
    grpc::ClientContext context;
    grpc::ByteBuffer request, response;
    std::atomic<grpc::StatusCode> code = grpc::StatusCode::OK;
    std::promise<void> end;
  };
  std::vector<std::unique_ptr<Call>> calls_;
};

constexpr size_t kMiB = size_t{1} << 20;

TEST_F(LimitsTest, WhatGrpcHoldsOfUnfinishedRequestsIsBounded) {
  start_and_load([](Config& config) { config.server.max_buffer_bytes = 16 * kMiB; });
  {
    PartialRequests requests;
    requests.add(12, app_->port(), "/pyramidkv.v1.GenerationService/Generate", 3 * kMiB);
    EXPECT_TRUE(eventually([&] { return requests.ended_for_want_of_room() > 0; }));
  }
  pb::GenerateResponse reply;
  EXPECT_TRUE(generate(request("hello", 2), reply).ok());
}

// At neither port there is more than is allowed.
TEST_F(LimitsTest, TheBoundIsOfBothPortsTogether) {
  start_and_load([](Config& config) {
    config.server.max_buffer_bytes = 16 * kMiB;
    config.server.health_listen = "127.0.0.1:0";
  });
  PartialRequests requests;
  requests.add(3, app_->port(), "/pyramidkv.v1.GenerationService/Generate", 3 * kMiB);
  requests.add(3, app_->health_port(), "/grpc.health.v1.Health/Check", 3 * kMiB);
  EXPECT_TRUE(eventually([&] { return requests.ended_for_want_of_room() > 0; }));
}

}  // namespace
}  // namespace pkv
