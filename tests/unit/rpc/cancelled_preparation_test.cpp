// A call whose caller gives up while its text is tokenised: that stops.
#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "server/rpc/generation_service.h"
#include "tests/unit/api/api_fixture.h"
#include "tests/unit/api/waiting_tokenizer.h"

namespace pkv {
namespace {

namespace pb = ::pyramidkv::v1;
using Stub = pb::GenerationService::Stub;

// Beyond what is answered on the thread it comes on.
const std::string kText(1000, 'x');

class CancelledPreparationTest : public ApiTest {
 protected:
  CancelledPreparationTest() : service_(*state_, std::make_shared<ReplyWatch>(*state_)) {
    chat_ = std::make_unique<ChatTemplate>(*file_->string("tokenizer.chat_template"), waiting_);
    served_.tokenizer = &waiting_;
    served_.chat_template = chat_.get();
    grpc::ServerBuilder builder;
    builder.RegisterService(&service_);
    server_ = builder.BuildAndStart();
    stub_ = pb::GenerationService::NewStub(server_->InProcessChannel({}));
  }
  ~CancelledPreparationTest() override {
    server_->Shutdown();
    server_->Wait();
  }
  void expect_stopped(const std::function<grpc::Status(grpc::ClientContext&)>& ask) {
    grpc::ClientContext context;
    std::jthread caller([&] { EXPECT_EQ(ask(context).error_code(), grpc::StatusCode::CANCELLED); });
    waiting_.wait_until_begun();
    context.TryCancel();
    EXPECT_TRUE(waiting_.is_stopped());
  }
  static pb::GenerateRequest prompt() {
    pb::GenerateRequest request;
    request.set_prompt(kText);
    request.set_truncate_prompt_tokens(1);
    return request;
  }
  static void set_chat(pb::ChatInput& chat) {
    pb::ChatMessage& message = *chat.add_messages();
    message.set_role("user");
    message.set_content(kText);
  }

  test::WaitingTokenizer waiting_{*file_};
  GenerationService service_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<Stub> stub_;
};

TEST_F(CancelledPreparationTest, Generate) {
  expect_stopped([this](grpc::ClientContext& context) {
    pb::GenerateResponse response;
    return stub_->Generate(&context, prompt(), &response);
  });
}

TEST_F(CancelledPreparationTest, GenerateStreamWithAChat) {
  expect_stopped([this](grpc::ClientContext& context) {
    pb::GenerateRequest request = prompt();
    set_chat(*request.mutable_chat());
    const auto reader = stub_->GenerateStream(&context, request);
    pb::GenerateStreamResponse event;
    EXPECT_FALSE(reader->Read(&event));
    return reader->Finish();
  });
}

TEST_F(CancelledPreparationTest, CompareWithItsPrompt) {
  expect_stopped([this](grpc::ClientContext& context) {
    pb::CompareRequest request;
    *request.mutable_request() = prompt();
    request.add_policies()->mutable_full();
    pb::CompareResponse response;
    return stub_->Compare(&context, request, &response);
  });
}

TEST_F(CancelledPreparationTest, CompareWithItsContinuation) {
  served_.shape.max_positions = 1 << 20;
  expect_stopped([this](grpc::ClientContext& context) {
    pb::CompareRequest request;
    request.mutable_request()->mutable_prompt_token_ids()->add_ids(5);
    request.set_continuation(kText);
    request.add_policies()->mutable_full();
    pb::CompareResponse response;
    return stub_->Compare(&context, request, &response);
  });
}

TEST_F(CancelledPreparationTest, TokenizeOfAText) {
  expect_stopped([this](grpc::ClientContext& context) {
    pb::TokenizeRequest request;
    request.set_text(kText);
    pb::TokenizeResponse response;
    return stub_->Tokenize(&context, request, &response);
  });
}

TEST_F(CancelledPreparationTest, TokenizeOfAChat) {
  expect_stopped([this](grpc::ClientContext& context) {
    pb::TokenizeRequest request;
    set_chat(*request.mutable_chat());
    pb::TokenizeResponse response;
    return stub_->Tokenize(&context, request, &response);
  });
}

// The server hears of it as of a caller that leaves. One that was not reached in time is asked again.
TEST_F(CancelledPreparationTest, ADeadlineThatPasses) {
  for (auto patience = std::chrono::milliseconds(50); !waiting_.has_begun(); patience *= 2) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + patience);
    pb::GenerateResponse response;
    EXPECT_EQ(stub_->Generate(&context, prompt(), &response).error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  }
  EXPECT_TRUE(waiting_.is_stopped());
}

}  // namespace
}  // namespace pkv
