// Errors on the wire: what a client that knows google.rpc decodes.
#include "server/status/field_error.h"
#include "tests/unit/rpc/rpc_fixture.h"

namespace pkv {
namespace {

TEST(Errors, CarryReasonFieldAndMetadata) {
  const DecodedError error = decode_error(make_error({.code = absl::StatusCode::kFailedPrecondition,
                                                      .reason = kCacheNeverFits,
                                                      .field = "cache_policy.budget",
                                                      .description = "too much",
                                                      .metadata = {{"peak_bytes", "5"}, {"pool_bytes", "4"}}}));
  EXPECT_EQ(error.code, grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(error.message, "cache_policy.budget: too much");
  EXPECT_EQ(error.reason, "CACHE_NEVER_FITS");
  EXPECT_EQ(error.domain, "pyramidkv");
  EXPECT_EQ(error.field, "cache_policy.budget");
  EXPECT_EQ(error.description, "too much");
  EXPECT_EQ(error.metadata, (std::map<std::string, std::string>{{"peak_bytes", "5"}, {"pool_bytes", "4"}}));
  EXPECT_EQ(error.retry_seconds, 0);
}

TEST(Errors, RetryInfo) {
  const absl::Status status = make_error({.code = absl::StatusCode::kResourceExhausted,
                                          .reason = kQueueFull,
                                          .description = "full",
                                          .retry_delay = absl::Milliseconds(1500)});
  EXPECT_EQ(decode_error(status).retry_seconds, 1.5);
  EXPECT_EQ(error_retry_delay(status), absl::Milliseconds(1500));
  EXPECT_EQ(error_reason(status), "QUEUE_FULL");
}

TEST(Errors, AFieldIsNeverTakenFromTheSentence) {
  const DecodedError named =
      decode_error(with_reason(field_error("messages[2].role", "must be user"), kBadInput, "chat."));
  EXPECT_EQ(named.field, "chat.messages[2].role");
  EXPECT_EQ(named.message, "chat.messages[2].role: must be user");
  const DecodedError unnamed =
      decode_error(with_reason(absl::FailedPreconditionError("template: none known"), kNoChatTemplate, "chat."));
  EXPECT_EQ(unnamed.field, "");
  EXPECT_EQ(unnamed.message, "template: none known");
}

TEST(Errors, AFieldOfAnInnerMessageIsNamedFromOutside) {
  const absl::Status inner = make_error({.reason = kBadCachePolicy,
                                         .field = "cache_policy.pins[1].end",
                                         .description = "is: beyond",
                                         .metadata = {{"max", "5"}}});
  const DecodedError moved = decode_error(with_field_moved(inner, "cache_policy", "policies[2]"));
  EXPECT_EQ(moved.field, "policies[2].pins[1].end");
  EXPECT_EQ(moved.message, "policies[2].pins[1].end: is: beyond");
  EXPECT_EQ(moved.description, "is: beyond");
  EXPECT_EQ(moved.reason, "BAD_CACHE_POLICY");
  EXPECT_EQ(moved.metadata.at("max"), "5");
  EXPECT_EQ(with_field_moved(inner, "sampling.", "x."), inner);
  const absl::Status unnamed = make_error({.reason = kQueueFull, .description = "full: very"});
  EXPECT_EQ(with_field_moved(unnamed, "", "request."), unnamed);
}

TEST(Errors, WhatTheServerNotesForItselfStaysInside) {
  absl::Status status = bad_input("prompt", "is empty");
  status.SetPayload("pyramidkv/own", absl::Cord("figures"));
  EXPECT_EQ(decode_error(status).field, "prompt");  // which fails at a detail that no client knows
}

TEST(Errors, PlainStatusesStayPlain) {
  const grpc::Status status = to_grpc_status(absl::CancelledError("gone"));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_EQ(status.error_message(), "gone");
  EXPECT_EQ(status.error_details(), "");
  EXPECT_TRUE(to_grpc_status(absl::OkStatus()).ok());
}

TEST(Errors, CodeNamesAreThoseOfGrpc) {
  EXPECT_EQ(status_code_name(grpc::StatusCode::OK), "OK");
  EXPECT_EQ(status_code_name(grpc::StatusCode::RESOURCE_EXHAUSTED), "RESOURCE_EXHAUSTED");
  EXPECT_EQ(status_code_name(grpc::StatusCode::UNAUTHENTICATED), "UNAUTHENTICATED");
}

}  // namespace
}  // namespace pkv
