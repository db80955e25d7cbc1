// Calls that are answered at once: what they say of an error.
#include "server/rpc/reply_watch.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "server/api/errors.h"
#include "server/rpc/generation_service.h"
#include "tests/unit/api/api_fixture.h"

namespace pkv {
namespace {

namespace pb = ::pyramidkv::v1;

// Has no memory for any Tokenize.
class PoorService final : public RawGenerationService {
 public:
  explicit PoorService(std::shared_ptr<ReplyWatch> watch) : watch_(std::move(watch)) {}

  grpc::ServerUnaryReactor* Tokenize(grpc::CallbackServerContext* context, const grpc::ByteBuffer*,
                                     grpc::ByteBuffer*) override {
    return reply_now(watch_, *context, out_of_memory());
  }

 private:
  const std::shared_ptr<ReplyWatch> watch_;
};

class ReplyWatchTest : public ApiTest {};

TEST_F(ReplyWatchTest, AReplyAtOnceSaysWhenToComeBack) {
  PoorService service(std::make_shared<ReplyWatch>(*state_));
  grpc::ServerBuilder builder;
  builder.RegisterService(&service);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  grpc::ClientContext context;
  pb::TokenizeResponse response;
  const auto stub = pb::GenerationService::NewStub(server->InProcessChannel({}));
  const grpc::Status status = stub->Tokenize(&context, {}, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  pb::ErrorStatus details;
  EXPECT_TRUE(details.ParseFromString(status.error_details()));
  EXPECT_EQ(details.details_size(), 2);  // ErrorInfo, RetryInfo
  const auto& trailers = context.GetServerTrailingMetadata();
  ASSERT_EQ(trailers.count("grpc-retry-pushback-ms"), 1u);
  EXPECT_EQ(trailers.find("grpc-retry-pushback-ms")->second, "1000");
}

}  // namespace
}  // namespace pkv
