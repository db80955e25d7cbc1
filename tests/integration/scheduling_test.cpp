// Several clients at once: cancellation, the queue's limit, streams that nobody reads.
#include <gmock/gmock.h>

#include <thread>

#include "tests/integration/server_fixture.h"

namespace pkv {
namespace {

class SchedulingTest : public ServerTest {};

TEST_F(SchedulingTest, ACancelledClientGivesItsPagesBackAndDisturbsNobody) {
  start_and_load();
  pb::GenerateRequest steady = request("the other one", 400);
  steady.mutable_cache_policy()->mutable_snapkv();
  steady.mutable_cache_policy()->mutable_budget()->set_tokens(16);
  pb::GenerateResponse alone, beside;
  ASSERT_TRUE(generate(steady, alone).ok());

  OpenStream endless(*generation_, request("hello world", kEndless));
  ASSERT_TRUE(endless.read_to_delta());
  grpc::Status status;
  std::thread other([&] { status = generate(steady, beside); });
  EXPECT_TRUE(
      eventually([&] { return stats().scheduler().running() == 2 || policy_stats("snapkv").requests_total() > 1; }));
  EXPECT_GT(stats().memory().kv_live_bytes(), 0u);
  endless.cancel();
  EXPECT_EQ(endless.finish().error_code(), grpc::StatusCode::CANCELLED);
  other.join();
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(beside.choices(0).text(), alone.choices(0).text());
  EXPECT_TRUE(eventually_idle());
  EXPECT_TRUE(eventually([&] { return app_->open_calls() == 0; }));  // an end is counted once it is sent
  EXPECT_EQ(stats().totals().requests_by_code().at("CANCELLED"), 1u);
}

TEST_F(SchedulingTest, TheQueueHasALimit) {
  start_and_load([](Config& config) {
    config.scheduler.max_running = 1;
    config.scheduler.max_waiting = 1;
  });
  OpenStream running(*generation_, request("first", kEndless));
  ASSERT_TRUE(running.read_to_delta());
  OpenStream waiting(*generation_, request("second", kEndless));
  ASSERT_TRUE(eventually([&] { return stats().scheduler().waiting() == 1; }));

  grpc::ClientContext context;
  pb::GenerateResponse reply;
  const grpc::Status status = generation_->Generate(&context, request("third", 1), &reply);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(reason(status), "QUEUE_FULL");
  const auto pushback = context.GetServerTrailingMetadata().find("grpc-retry-pushback-ms");
  ASSERT_NE(pushback, context.GetServerTrailingMetadata().end());
  EXPECT_GT(std::stoi(std::string(pushback->second.data(), pushback->second.size())), 0);
  EXPECT_EQ(stats().totals().rejected(), 1u);

  // Room again once one of them is gone.
  running.cancel();
  running.finish();
  ASSERT_TRUE(eventually([&] { return stats().scheduler().waiting() == 0; }));
  waiting.cancel();
  waiting.finish();
  EXPECT_TRUE(eventually_idle());
  EXPECT_TRUE(generate(request("fourth", 1), reply).ok());
}

TEST_F(SchedulingTest, NoHeadersBeforeAdmission) {
  start_and_load([](Config& config) { config.scheduler.max_running = 1; });
  OpenStream running(*generation_, request("first", kEndless));
  ASSERT_TRUE(running.read_to_delta());
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(200));
  const auto reader = generation_->GenerateStream(&context, request("second", 5));
  pb::GenerateStreamResponse event;
  EXPECT_FALSE(reader->Read(&event));
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_TRUE(context.GetServerInitialMetadata().empty());
}

TEST_F(SchedulingTest, RequestsAreListed) {
  start_and_load();
  pb::GenerateRequest wish = request("hello", kEndless);
  wish.set_request_id("listed");
  OpenStream running(*generation_, wish);
  ASSERT_TRUE(running.read_to_delta());
  pb::Stats now;
  ASSERT_TRUE(eventually([&] {
    now = stats(true);
    return now.requests_size() == 1 && now.requests(0).generated_tokens() > 0;
  }));
  EXPECT_EQ(now.requests(0).request_id(), "listed");
  EXPECT_EQ(now.requests(0).policy(), "full");
  EXPECT_GT(now.requests(0).held_bytes(), 0u);
  EXPECT_EQ(now.state(), pb::SERVER_STATE_SERVING);
}

TEST_F(SchedulingTest, AStreamThatNobodyReadsHoldsNobodyUp) {
  start_and_load();
  pb::GenerateRequest chatty = request("hello", 8000);
  chatty.mutable_output()->set_top_logprobs(20);  // more than a connection's window
  OpenStream unread(*generation_, chatty);
  ASSERT_TRUE(unread.read_to_delta());
  pb::GenerateResponse reply;
  EXPECT_TRUE(generate(request("me too", 50), reply).ok());
  EXPECT_TRUE(eventually_idle());  // the engine is done with both, whether or not the client reads
  EXPECT_TRUE(unread.finish().ok());
}

}  // namespace
}  // namespace pkv
