// Loading, health, reflection, draining, and that nothing hangs at the end.
#include <gmock/gmock.h>
#include <grpcpp/generic/generic_stub.h>

#include <thread>

#include "tests/integration/raw_call.h"
#include "tests/integration/server_fixture.h"

namespace pkv {
namespace {

class LifecycleTest : public ServerTest {
 protected:
  // As a Kubernetes probe asks. 1: SERVING, 2: NOT_SERVING.
  int health(const std::string& service) { return check_health(channel_, service); }
};

TEST_F(LifecycleTest, ListensBeforeItServes) {
  start();
  EXPECT_EQ(health(""), 1);
  EXPECT_EQ(health("pyramidkv.v1.GenerationService"), 2);
  pb::GenerateResponse reply;
  const grpc::Status status = generate(request("hello", 1), reply);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(reason(status), "LOADING");
  EXPECT_EQ(stats().state(), pb::SERVER_STATE_LOADING);
  ASSERT_TRUE(app_->load().ok());
  EXPECT_EQ(health("pyramidkv.v1.GenerationService"), 1);
  EXPECT_TRUE(generate(request("hello", 1), reply).ok());
}

TEST_F(LifecycleTest, AMissingModelFileIsNamed) {
  start([](Config& config) { config.model.path = "/nonexistent/model.gguf"; });
  const absl::Status status = app_->load();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr("/nonexistent/model.gguf"));
}

TEST_F(LifecycleTest, ATakenPortIsRefused) {
  start([](Config& config) { config.metrics.listen = "127.0.0.1:0"; });
  Config config;
  config.server.listen = "127.0.0.1:" + std::to_string(app_->port());
  config.metrics.listen = "";
  const auto second = App::start(config, log_);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(second.status().message()), ::testing::HasSubstr(config.server.listen));
  config.server.listen = "127.0.0.1:0";
  config.metrics.listen = "127.0.0.1:" + std::to_string(app_->metrics_port());
  EXPECT_THAT(std::string(App::start(config, log_).status().message()), ::testing::HasSubstr("metrics.listen"));
}

TEST_F(LifecycleTest, ReflectionIsASwitch) {
  start();
  EXPECT_THAT(list_services(channel_),
              ::testing::IsSupersetOf(
                  {"pyramidkv.v1.GenerationService", "pyramidkv.v1.ModelService", "pyramidkv.v1.StatsService"}));
  start([](Config& config) { config.server.reflection = false; });
  EXPECT_TRUE(list_services(channel_).empty());
}

TEST_F(LifecycleTest, DrainingLetsRequestsEndAndRefusesNewOnes) {
  start_and_load();
  pb::GenerateResponse alone, drained, refused;
  const pb::GenerateRequest wish = request("hello world", 3000);
  ASSERT_TRUE(generate(wish, alone).ok());
  grpc::Status status;
  std::thread client([&] { status = generate(wish, drained); });
  ASSERT_TRUE(
      eventually([&] { return stats().scheduler().running() == 1 || stats().policies(0).requests_total() > 1; }));
  std::thread stop([&] { app_->stop(absl::Now() + absl::Minutes(1)); });
  stop.join();
  client.join();
  EXPECT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(drained.choices(0).text(), alone.choices(0).text());
  EXPECT_EQ(generate(wish, refused).error_code(), grpc::StatusCode::UNAVAILABLE);
}

TEST_F(LifecycleTest, WhileDraining) {
  start_and_load();
  OpenStream running(*generation_, request("hello world", kEndless));
  ASSERT_TRUE(running.read_to_delta());
  std::thread stop([&] { app_->stop(absl::Now() + absl::Minutes(5)); });
  EXPECT_TRUE(eventually([&] { return health("pyramidkv.v1.GenerationService") == 2; }));
  EXPECT_EQ(health(""), 1);
  EXPECT_TRUE(eventually([&] { return stats().state() == pb::SERVER_STATE_DRAINING; }));
  pb::GenerateResponse reply;
  const grpc::Status refused = generate(request("me too", 1), reply);
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(reason(refused), "DRAINING");
  running.cancel();
  EXPECT_EQ(running.finish().error_code(), grpc::StatusCode::CANCELLED);
  stop.join();
}

TEST_F(LifecycleTest, TheDrainDeadlineCancelsTheRest) {
  start_and_load();
  OpenStream running(*generation_, request("hello world", kEndless));
  ASSERT_TRUE(running.read_to_delta());
  app_->stop(absl::Now());
  EXPECT_EQ(running.finish().error_code(), grpc::StatusCode::UNAVAILABLE);
}

TEST_F(LifecycleTest, StoppingDoesNotWaitForAClientThatDoesNotRead) {
  start_and_load();
  pb::GenerateRequest chatty = request("hello", 8000);
  chatty.mutable_output()->set_top_logprobs(20);
  OpenStream unread(*generation_, chatty);
  ASSERT_TRUE(unread.read_to_delta());
  app_->stop(absl::Now());
  EXPECT_FALSE(unread.finish().ok());
}

}  // namespace
}  // namespace pkv
