// Requests that are no messages: the answer names the field whose text is not UTF-8.
#include "server/rpc/wire.h"

#include <gmock/gmock.h>

#include "pyramidkv/v1/generation.pb.h"
#include "server/rpc/request_scan.h"
#include "tests/unit/api/api_fixture.h"

namespace pkv {
namespace {

namespace pb = ::pyramidkv::v1;

// The bytes of `message`, its marks replaced by a byte that is no UTF-8.
grpc::ByteBuffer broken(const pb::GenerateRequest& message) {
  std::string bytes = message.SerializeAsString();
  for (char& c : bytes) {
    if (c == '@') c = '\xFF';
  }
  const grpc::Slice slice(bytes);
  return grpc::ByteBuffer(&slice, 1);
}

DecodedError refusal(const grpc::ByteBuffer& buffer) {
  pb::GenerateRequest message;
  return decode_error(parse_message(buffer, message));
}

TEST(Wire, RoundTrip) {
  pb::GenerateRequest message, back;
  message.set_prompt("gr\xC3\xBC\xC3\x9F dich \xF0\x9F\x98\x80");
  ASSERT_TRUE(parse_message(serialize_message(message), back).ok());
  EXPECT_EQ(back.prompt(), message.prompt());
}

TEST(Wire, AFieldOfAnotherTypeIsRefusedByItsName) {
  const auto refused = [](const char* bytes, size_t size) {
    const grpc::Slice slice(bytes, size);
    return refusal(grpc::ByteBuffer(&slice, 1));
  };
  const DecodedError number = refused("\x18\x05", 2);  // prompt
  EXPECT_EQ(number.reason, "BAD_INPUT");
  EXPECT_EQ(number.field, "prompt");
  EXPECT_EQ(refused("\x1a\x01x\x32\x03\x0a\x01x", 8).field, "sampling.temperature");
}

TEST(Wire, NoRequestAtAllIsNobodysBadInput) {
  EXPECT_EQ(refusal(grpc::ByteBuffer()).code, absl::StatusCode::kCancelled);
  EXPECT_EQ(refusal(grpc::ByteBuffer()).reason, "");
  pb::GenerateRequest empty;
  EXPECT_TRUE(parse_message(serialize_message(empty), empty).ok());
}

TEST(Wire, BadUtf8NamesTheField) {
  pb::GenerateRequest message;
  message.set_prompt("a@b");
  EXPECT_EQ(refusal(broken(message)).field, "prompt");
  EXPECT_EQ(refusal(broken(message)).reason, "BAD_INPUT");
  EXPECT_EQ(refusal(broken(message)).code, absl::StatusCode::kInvalidArgument);

  message.Clear();
  message.mutable_chat()->add_messages()->set_content("fine");
  message.mutable_chat()->add_messages()->set_content("@");
  EXPECT_EQ(refusal(broken(message)).field, "chat.messages[1].content");

  message.Clear();
  message.set_prompt("x");
  message.mutable_sampling()->add_stop("@");
  EXPECT_EQ(refusal(broken(message)).field, "sampling.stop[0]");
}

TEST(Wire, GarbageIsRefused) {
  const grpc::Slice slice("\x0A\x7F short");
  const DecodedError error = refusal(grpc::ByteBuffer(&slice, 1));
  EXPECT_EQ(error.code, absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(error.reason, "BAD_INPUT");
}

// The proto says "never ignored".
TEST(Wire, AFieldThatIsNotKnownIsRefusedByItsNumber) {
  pb::GenerateRequest message;
  message.set_prompt("hello");
  message.GetReflection()->MutableUnknownFields(&message)->AddVarint(12, 1);
  const DecodedError error = refusal(serialize_message(message));
  EXPECT_EQ(error.code, absl::StatusCode::kUnimplemented);
  EXPECT_EQ(error.field, "12");
  EXPECT_THAT(error.message, ::testing::HasSubstr("pyramidkv.v1.GenerateRequest"));

  message.Clear();
  pb::ChatMessage& inner = *message.mutable_chat()->add_messages();
  inner.GetReflection()->MutableUnknownFields(&inner)->AddLengthDelimited(99, "x");
  EXPECT_EQ(refusal(serialize_message(message)).field, "chat.messages.99");
}

// 4 MB of empty chat messages would become 223 MiB.
TEST(Wire, ValuesAreCountedBeforeAnyIsMade) {
  pb::GenerateRequest message;
  for (size_t i = 0; i <= kMaxValues; ++i) message.mutable_chat()->add_messages();
  EXPECT_EQ(refusal(serialize_message(message)).field, "chat.messages");
  message.Clear();
  for (size_t i = 0; i <= kMaxValues; ++i) message.mutable_sampling()->add_stop();
  EXPECT_EQ(refusal(serialize_message(message)).field, "sampling.stop");
  message.Clear();  // packed, so one value
  message.mutable_prompt_token_ids()->mutable_ids()->Resize(static_cast<int>(kMaxValues) + 1, 1);
  EXPECT_EQ(refusal(serialize_message(message)).message, "");
}

TEST(Wire, EveryFieldThatIsKnownIsTaken) {
  pb::CompareRequest message;
  message.mutable_request()->mutable_chat()->add_messages()->set_content("hello");
  (*message.mutable_request()->mutable_sampling()->mutable_logit_bias())[7] = 1;
  message.mutable_request()->mutable_output()->set_echo(true);
  message.add_policies()->mutable_budget()->set_keep_ratio(0.5);
  pb::CompareRequest back;
  ASSERT_TRUE(parse_message(serialize_message(message), back).ok());
  EXPECT_EQ(back.SerializeAsString(), message.SerializeAsString());
}

}  // namespace
}  // namespace pkv
