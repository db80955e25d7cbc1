// What a server takes of its callers at most, by its configuration.
#include <gmock/gmock.h>

#include "tests/integration/server_fixture.h"

namespace pkv {
namespace {

using ::testing::HasSubstr;

using LimitsTest = ServerTest;

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

}  // namespace
}  // namespace pkv
