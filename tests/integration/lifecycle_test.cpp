// Loading, health, reflection, draining, and that nothing hangs at the end.
#include <gmock/gmock.h>
#include <grpcpp/generic/generic_stub.h>

#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "tests/integration/raw_call.h"
#include "tests/integration/server_fixture.h"
#include "tests/support/forwarding_backend.h"

namespace pkv {
namespace {

constexpr int kServing = 1, kNotServing = 2, kServiceUnknown = 3;

class LifecycleTest : public ServerTest {
 protected:
  // As a Kubernetes probe asks.
  int health(const std::string& service) { return check_health(channel_, service); }
  // What all names that mean "may receive traffic" say, where they agree.
  int readiness() {
    const int first = health("");
    for (const char* service :
         {"pyramidkv.v1.GenerationService", "pyramidkv.v1.ModelService", "pyramidkv.v1.StatsService"}) {
      if (health(service) != first) return 0;
    }
    return app_->ready().ok() == (first == kServing) ? first : 0;
  }
};

TEST_F(LifecycleTest, ListensBeforeItServes) {
  start();
  EXPECT_EQ(readiness(), kNotServing);
  EXPECT_EQ(health("live"), kServing);
  pb::GenerateResponse reply;
  const grpc::Status status = generate(request("hello", 1), reply);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(reason(status), "LOADING");
  EXPECT_EQ(stats().state(), pb::SERVER_STATE_LOADING);
  ASSERT_TRUE(app_->load().ok());
  EXPECT_EQ(readiness(), kServing);
  EXPECT_EQ(health("live"), kServing);
  EXPECT_TRUE(generate(request("hello", 1), reply).ok());
}

TEST_F(LifecycleTest, HealthOfAnUnknownService) {
  start();
  EXPECT_EQ(health("pyramidkv.v1.Generation"), -static_cast<int>(grpc::StatusCode::NOT_FOUND));
  EXPECT_EQ(health(std::string(5000, 'x')), -static_cast<int>(grpc::StatusCode::INVALID_ARGUMENT));
  HealthWatch watch(channel_, "pyramidkv.v1.Generation");
  EXPECT_EQ(watch.next(), kServiceUnknown);
}

TEST_F(LifecycleTest, HealthIsWatched) {
  start();
  HealthWatch ready(channel_, ""), live(channel_, "live"), gone(channel_, "");
  EXPECT_EQ(ready.next(), kNotServing);
  EXPECT_EQ(gone.next(), kNotServing);
  EXPECT_EQ(live.next(), kServing);
  gone.cancel();
  EXPECT_EQ(gone.next(), 0);
  ASSERT_TRUE(app_->load().ok());
  EXPECT_EQ(ready.next(), kServing);
  // Watches do not keep a server from ending.
  ASSERT_TRUE(app_->stop(absl::Now()).ok());
  EXPECT_EQ(ready.next(), kNotServing);
  EXPECT_EQ(ready.next(), 0);
  EXPECT_EQ(ready.status().error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(reason(ready.status()), "DRAINING");
  EXPECT_EQ(live.next(), kNotServing);
}

TEST_F(LifecycleTest, AnEngineThatDoesNotMoveIsNotLive) {
  // Any time at all is too long.
  start_and_load({}, {.stall_limit = absl::ZeroDuration()});
  EXPECT_EQ(health("live"), kServing);
  EXPECT_TRUE(app_->live().ok());
  HealthWatch live(channel_, "live");
  EXPECT_EQ(live.next(), kServing);
  {
    OpenStream running(*generation_, request("hello world", kEndless));
    ASSERT_TRUE(running.read_to_delta());
    EXPECT_EQ(health("live"), kNotServing);
    EXPECT_THAT(std::string(app_->live().message()), ::testing::HasSubstr("has not moved"));
    EXPECT_EQ(readiness(), kServing);
    EXPECT_EQ(live.next(), kNotServing);
  }
  EXPECT_EQ(live.next(), kServing);
}

// Calls a function before every weight that it takes.
class AskedBackend final : public test::ForwardingBackend {
 public:
  AskedBackend(std::unique_ptr<Backend> inner, std::function<void()> ask)
      : ForwardingBackend(std::move(inner)), ask_(std::move(ask)) {}
  absl::StatusOr<std::unique_ptr<Weight>> prepare_weight(const WeightSource& source) override {
    ask_();
    return ForwardingBackend::prepare_weight(source);
  }

 private:
  std::function<void()> ask_;
};

TEST_F(LifecycleTest, WhoAsksForReadinessHearsHowFarTheLoadIs) {
  std::vector<std::string> answers;
  start({}, {.make_backend = [&](const BackendOptions& options) -> absl::StatusOr<std::unique_ptr<Backend>> {
          auto made = make_backend(options);
          if (!made.ok()) return made.status();
          return std::make_unique<AskedBackend>(*std::move(made),
                                                [&] { answers.emplace_back(app_->ready().message()); });
        }});
  ASSERT_TRUE(app_->load().ok());
  ASSERT_GE(answers.size(), 2u);
  EXPECT_EQ(answers.front(), "the model is being loaded");
  EXPECT_THAT(answers.back(), ::testing::MatchesRegex("the model is being loaded .[1-9][0-9]? % of [0-9]+ MiB."));
}

TEST_F(LifecycleTest, ALoadCanBeGivenUp) {
  start();
  app_->abandon_load();
  EXPECT_EQ(app_->load().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(readiness(), kNotServing);
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
  EXPECT_THAT(std::string(second.status().message()),
              ::testing::AllOf(::testing::HasSubstr(config.server.listen), ::testing::HasSubstr("already in use"),
                               ::testing::HasSubstr("set server.listen")));
  config.server.listen = "192.0.2.1:0";  // reserved for documentation
  EXPECT_THAT(std::string(App::start(config, log_).status().message()),
              ::testing::HasSubstr("no address of this machine"));
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

TEST_F(LifecycleTest, ReflectionDescribesWhatItLists) {
  start();
  const std::vector<std::string> services = list_services(channel_);
  EXPECT_THAT(services, ::testing::Contains("grpc.health.v1.Health"));
  for (const std::string& service : services) {
    EXPECT_THAT(describe_service(channel_, service), ::testing::Not(::testing::IsEmpty())) << service;
  }
  EXPECT_THAT(describe_service(channel_, "grpc.health.v1.Health"), ::testing::ElementsAre("Check", "Watch"));
  EXPECT_THAT(describe_service(channel_, "pyramidkv.v1.ModelService"), ::testing::Contains("ListModels"));
  EXPECT_TRUE(describe_service(channel_, "no.such.Service").empty());
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
  std::thread stop([&] { EXPECT_TRUE(app_->stop(absl::Now() + absl::Minutes(1)).ok()); });
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
  std::thread stop([&] { EXPECT_TRUE(app_->stop(absl::Now() + absl::Minutes(5)).ok()); });
  EXPECT_TRUE(eventually([&] { return readiness() == kNotServing; }));
  EXPECT_EQ(health("live"), kServing);
  EXPECT_THAT(std::string(app_->ready().message()), ::testing::HasSubstr("draining"));
  EXPECT_TRUE(eventually([&] { return stats().state() == pb::SERVER_STATE_DRAINING; }));
  pb::GenerateResponse reply;
  const grpc::Status refused = generate(request("me too", 1), reply);
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(reason(refused), "DRAINING");
  grpc::ClientContext context;
  pb::TokenizeRequest text;
  text.set_text("me too");
  pb::TokenizeResponse tokens;
  EXPECT_EQ(reason(generation_->Tokenize(&context, text, &tokens)), "DRAINING");
  running.cancel();
  EXPECT_EQ(running.finish().error_code(), grpc::StatusCode::CANCELLED);
  stop.join();
}

// A client that balances hears by its watch that it should go elsewhere. What it has sent meanwhile has to come back as
// an error that it retries, although nothing is left to drain. Once it has left, nobody is waited for.
TEST_F(LifecycleTest, WhoWatchesTheHealthIsAnsweredWhileItHears) {
  start_and_load({}, {.hearing_time = absl::InfiniteDuration()});
  HealthWatch watch(channel_, "");
  EXPECT_EQ(watch.next(), kServing);
  std::thread stop([&] { EXPECT_TRUE(app_->stop(absl::Now()).ok()); });
  EXPECT_EQ(watch.next(), kNotServing);
  pb::GenerateResponse reply;
  const grpc::Status refused = generate(request("me too", 1), reply);
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(reason(refused), "DRAINING");
  watch.cancel();
  stop.join();
}

TEST_F(LifecycleTest, TheDrainDeadlineCancelsTheRest) {
  start_and_load();
  OpenStream running(*generation_, request("hello world", kEndless));
  ASSERT_TRUE(running.read_to_delta());
  EXPECT_TRUE(app_->stop(absl::Now()).ok());
  const grpc::Status cut_off = running.finish();
  EXPECT_EQ(cut_off.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(reason(cut_off), "DRAINING");
}

TEST_F(LifecycleTest, StoppingDoesNotWaitForAClientThatDoesNotRead) {
  start_and_load();
  pb::GenerateRequest chatty = request("hello", 8000);
  chatty.mutable_output()->set_top_logprobs(20);
  OpenStream unread(*generation_, chatty);
  ASSERT_TRUE(unread.read_to_delta());
  EXPECT_TRUE(app_->stop(absl::Now()).ok());
  EXPECT_FALSE(unread.finish().ok());
}

}  // namespace
}  // namespace pkv
