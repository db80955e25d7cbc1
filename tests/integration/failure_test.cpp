// A device that fails while it serves, as callers, probes and the operator see it.
#include <gmock/gmock.h>

#include <string>
#include <utility>

#include "tests/integration/raw_call.h"
#include "tests/integration/server_fixture.h"
#include "tests/support/failing_backend.h"

namespace pkv {
namespace {

constexpr int kServing = 1, kNotServing = 2;

class FailureTest : public ServerTest {
 protected:
  // One request at a time.
  void start_on_failing_device() {
    start_and_load([](Config& config) { config.scheduler.max_running = 1; },
                   {.make_backend = [this](const BackendOptions& options) -> absl::StatusOr<std::unique_ptr<Backend>> {
                     auto made = make_backend(options);
                     if (!made.ok()) return made;
                     auto failing = std::make_unique<test::FailingBackend>(*std::move(made));
                     device_ = failing.get();
                     return failing;
                   }});
  }
  test::FailingBackend* device_ = nullptr;
};

TEST_F(FailureTest, ADeviceThatFailsEndsEverythingAndSaysSo) {
  start_on_failing_device();
  HealthWatch ready(channel_, ""), live(channel_, "live");
  EXPECT_EQ(ready.next(), kServing);
  EXPECT_EQ(live.next(), kServing);

  OpenStream running(*generation_, request("hello world", kEndless));
  ASSERT_TRUE(running.read_to_delta());
  OpenStream queued(*generation_, request("me too", 5));
  ASSERT_TRUE(eventually([&] { return stats().scheduler().waiting() == 1; }));
  device_->fail_soon();

  const grpc::Status ended = running.finish();
  EXPECT_EQ(ended.error_code(), grpc::StatusCode::INTERNAL);
  EXPECT_EQ(reason(ended), "ENGINE_FAILED");
  EXPECT_EQ(error_info(ended).domain(), "pyramidkv");
  EXPECT_THAT(ended.error_message(), ::testing::HasSubstr("the device is lost"));
  const grpc::Status waited = queued.finish();
  EXPECT_EQ(waited.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(reason(waited), "ENGINE_FAILED");

  EXPECT_EQ(ready.next(), kNotServing);
  EXPECT_EQ(check_health(channel_, "pyramidkv.v1.GenerationService"), kNotServing);
  EXPECT_EQ(check_health(channel_, "live"), kServing);
  pb::GenerateResponse reply;
  const grpc::Status refused = generate(request("and me", 1), reply);
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(reason(refused), "ENGINE_FAILED");
  const pb::Stats after = stats();
  EXPECT_EQ(after.scheduler().running() + after.scheduler().waiting(), 0u);
  EXPECT_EQ(after.memory().kv_live_bytes(), 0u);

  EXPECT_EQ(app_->engine_failure().code(), absl::StatusCode::kInternal);
  EXPECT_TRUE(app_->stop(absl::Now()).ok());
}

TEST_F(FailureTest, ADeviceThatFailsWhileLoadingIsNotServed) {
  start({}, {.make_backend = [](const BackendOptions& options) -> absl::StatusOr<std::unique_ptr<Backend>> {
          auto made = make_backend(options);
          if (!made.ok()) return made;
          auto failing = std::make_unique<test::FailingBackend>(*std::move(made));
          failing->fail_soon();
          return failing;
        }});
  EXPECT_THAT(std::string(app_->load().message()), ::testing::HasSubstr("the device is lost"));
  EXPECT_EQ(check_health(channel_, ""), kNotServing);
}

}  // namespace
}  // namespace pkv
