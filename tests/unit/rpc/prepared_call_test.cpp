// Calls that are answered without the engine: when their reply is made, and when not.
#include "server/rpc/prepared_call.h"

#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <memory>
#include <string>

#include "absl/time/clock.h"
#include "server/api/gate.h"
#include "server/rpc/call_info.h"
#include "server/rpc/generation_service.h"
#include "tests/unit/api/api_fixture.h"

namespace pkv {
namespace {

namespace pb = ::pyramidkv::v1;

constexpr size_t kReplyBytes = 1 << 20;

// Tokenize that counts how often its reply is made.
class CountingService final : public RawGenerationService {
 public:
  CountingService(ServerState& state, std::shared_ptr<ReplyWatch> watch) : state_(state), watch_(std::move(watch)) {}

  grpc::ServerUnaryReactor* Tokenize(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                     grpc::ByteBuffer* response) override {
    arrived = context;
    const auto make = [this](const std::stop_token&) -> absl::StatusOr<grpc::ByteBuffer> {
      ++made;
      const grpc::Slice text(std::string(kReplyBytes, '\0'));
      return grpc::ByteBuffer(&text, 1);
    };
    return start_prepared_call(state_, watch_, describe_call(*context, "Tokenize"), *context, *response,
                               request->Length(), make);
  }

  std::atomic<int> made = 0;
  std::atomic<grpc::CallbackServerContext*> arrived = nullptr;  // the last call, while it lives

 private:
  ServerState& state_;
  const std::shared_ptr<ReplyWatch> watch_;
};

class PreparedCallTest : public ApiTest {
 protected:
  void serve(const FrontLimits& limits) {
    state_ = std::make_unique<ServerState>(*PolicyCatalog::create(policies(), KvDtype::kF16), log_, 7, limits);
    state_->publish(&served_);
    service_ = std::make_unique<CountingService>(*state_, std::make_shared<ReplyWatch>(*state_));
    grpc::ServerBuilder builder;
    builder.RegisterService(service_.get());
    server_ = builder.BuildAndStart();
    stub_ = pb::GenerationService::NewStub(server_->InProcessChannel({}));
  }
  ~PreparedCallTest() override {
    if (server_ == nullptr) return;
    server_->Shutdown();
    server_->Wait();
  }
  grpc::Status tokenize(std::chrono::milliseconds patience = std::chrono::minutes(1)) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + patience);
    pb::TokenizeResponse response;
    return stub_->Tokenize(&context, {}, &response);
  }

  std::unique_ptr<CountingService> service_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<pb::GenerationService::Stub> stub_;
};

TEST_F(PreparedCallTest, WhoHasGivenUpIsNotBegunWith) {
  serve({.preparation_threads = 1});
  std::promise<void> free;
  ASSERT_TRUE(state_->preparation().post([gate = free.get_future().share()] { gate.wait(); }));
  EXPECT_EQ(tokenize(std::chrono::milliseconds(50)).error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  while (!service_->arrived.load()->IsCancelled()) absl::SleepFor(absl::Milliseconds(1));  // the server has heard of it
  free.set_value();
  state_->preparation().stop();  // when all that waits was done
  EXPECT_EQ(service_->made, 0);
}

TEST_F(PreparedCallTest, ItHasAPlaceAmongThoseThatWait) {
  serve({.max_waiting = 1});
  {
    const absl::StatusOr<WaitingRoom::Place> place = enter(*state_, 1, "");
    ASSERT_TRUE(place.ok());
    EXPECT_EQ(tokenize().error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
    EXPECT_EQ(service_->made, 0);
  }
  tokenize();
  EXPECT_EQ(service_->made, 1);
}

TEST_F(PreparedCallTest, ALargeReplyNeedsRoomWhereOthersWait) {
  serve({.max_waiting_bytes = kReplyBytes});
  {
    const absl::StatusOr<WaitingRoom::Place> place = enter(*state_, 100, "");
    ASSERT_TRUE(place.ok());
    EXPECT_EQ(tokenize().error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  }
  EXPECT_NE(tokenize().error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
}

}  // namespace
}  // namespace pkv
