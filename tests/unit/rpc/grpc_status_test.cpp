// Errors on the wire: what a client that knows google.rpc decodes.
#include "server/rpc/grpc_status.h"

#include <gtest/gtest.h>

#include <map>
#include <string>

#include "pyramidkv/v1/error_details.pb.h"
#include "server/api/errors.h"

namespace pkv {
namespace {

namespace pb = ::pyramidkv::v1;

// The details by their types.
std::map<std::string, std::string> details_of(const grpc::Status& status) {
  pb::ErrorStatus details;
  EXPECT_TRUE(details.ParseFromString(status.error_details()));
  EXPECT_EQ(details.code(), status.error_code());
  EXPECT_EQ(details.message(), status.error_message());
  std::map<std::string, std::string> out;
  for (const google::protobuf::Any& any : details.details()) out[any.type_url()] = any.value();
  return out;
}

TEST(GrpcStatus, CarriesReasonFieldAndMetadata) {
  const grpc::Status status = to_grpc_status(make_error({.reason = kCacheNeverFits,
                                                         .field = "cache_policy.budget",
                                                         .description = "too much",
                                                         .metadata = {{"peak_bytes", "5"}, {"pool_bytes", "4"}}}));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(status.error_message(), "cache_policy.budget: too much");
  std::map<std::string, std::string> details = details_of(status);
  EXPECT_EQ(details.size(), 2u);
  pb::ErrorInfo info;
  ASSERT_TRUE(info.ParseFromString(details["type.googleapis.com/google.rpc.ErrorInfo"]));
  EXPECT_EQ(info.reason(), "CACHE_NEVER_FITS");
  EXPECT_EQ(info.domain(), "pyramidkv");
  EXPECT_EQ(info.metadata().at("peak_bytes"), "5");
  pb::BadRequest request;
  ASSERT_TRUE(request.ParseFromString(details["type.googleapis.com/google.rpc.BadRequest"]));
  ASSERT_EQ(request.field_violations_size(), 1);
  EXPECT_EQ(request.field_violations(0).field(), "cache_policy.budget");
  EXPECT_EQ(request.field_violations(0).description(), "too much");
}

TEST(GrpcStatus, RetryInfo) {
  std::map<std::string, std::string> details = details_of(to_grpc_status(
      make_error({.reason = kQueueFull, .description = "full", .retry_delay = absl::Milliseconds(1500)})));
  pb::RetryInfo retry;
  ASSERT_TRUE(retry.ParseFromString(details["type.googleapis.com/google.rpc.RetryInfo"]));
  EXPECT_EQ(retry.retry_delay().seconds(), 1);
  EXPECT_EQ(retry.retry_delay().nanos(), 500'000'000);
}

TEST(GrpcStatus, WhatTheServerNotesForItselfStaysInside) {
  absl::Status status = bad_input("prompt", "is empty");
  status.SetPayload("pyramidkv/own", absl::Cord("figures"));
  EXPECT_EQ(details_of(to_grpc_status(status)).size(), 2u);  // reason and field
}

TEST(GrpcStatus, PlainStatusesStayPlain) {
  const grpc::Status status = to_grpc_status(absl::CancelledError("gone"));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_EQ(status.error_message(), "gone");
  EXPECT_EQ(status.error_details(), "");
  EXPECT_TRUE(to_grpc_status(absl::OkStatus()).ok());
}

}  // namespace
}  // namespace pkv
