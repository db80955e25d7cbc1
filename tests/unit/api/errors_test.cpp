// Errors: their reasons with code and HTTP status, fields, and what else they carry.
#include "server/status/field_error.h"
#include "tests/unit/api/api_fixture.h"

namespace pkv {
namespace {

TEST(Errors, CarryReasonFieldAndMetadata) {
  const DecodedError error = decode_error(make_error({.reason = kCacheNeverFits,
                                                      .field = "cache_policy.budget",
                                                      .description = "too much",
                                                      .metadata = {{"peak_bytes", "5"}, {"pool_bytes", "4"}}}));
  EXPECT_EQ(error.code, absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(error.message, "cache_policy.budget: too much");
  EXPECT_EQ(error.reason, "CACHE_NEVER_FITS");
  EXPECT_EQ(error.domain, "pyramidkv");
  EXPECT_EQ(error.field, "cache_policy.budget");
  EXPECT_EQ(error.description, "too much");
  EXPECT_EQ(error.metadata, (std::map<std::string, std::string>{{"peak_bytes", "5"}, {"pool_bytes", "4"}}));
  EXPECT_EQ(error.retry_seconds, 0);
}

TEST(Errors, RetryInfo) {
  const absl::Status status =
      make_error({.reason = kQueueFull, .description = "full", .retry_delay = absl::Milliseconds(1500)});
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

TEST(Errors, AReasonHasOneCodeAndOneHttpStatus) {
  const auto status_of = [](std::string_view reason) { return http_status(make_error({.reason = reason})); };
  EXPECT_EQ(make_error({.reason = kServerDraining}).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(status_of(kServerDraining), 503);
  EXPECT_EQ(status_of(kQueueFull), 429);
  EXPECT_EQ(status_of(kNotFound), 404);
  EXPECT_EQ(status_of(kEngineFailed), 500);
  EXPECT_EQ(status_of(kOutOfMemory), 503);
  for (const std::string_view reason : {kBadInput, kContextTooLong, kCacheNeverFits, kNotImplemented}) {
    EXPECT_EQ(status_of(reason), 400) << reason;  // clients send the rest again
  }
  EXPECT_EQ(http_status(make_error({.code = absl::StatusCode::kUnavailable, .reason = kEngineFailed})), 503);
  EXPECT_EQ(http_status(absl::DeadlineExceededError("late")), 504);
  EXPECT_EQ(http_status(absl::UnknownError("odd")), 500);
}

TEST(Errors, WantOfMemoryHasAReason) {
  const DecodedError error = decode_error(out_of_memory());
  EXPECT_EQ(error.code, absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(error.reason, "OUT_OF_MEMORY");
  EXPECT_GT(error.retry_seconds, 0);
  EXPECT_EQ(out_of_memory("no memory for a tensor").message(), "no memory for a tensor");
}

TEST(Errors, CodeNamesAreThoseOfGrpc) {
  EXPECT_EQ(status_code_name(absl::StatusCode::kOk), "OK");
  EXPECT_EQ(status_code_name(absl::StatusCode::kResourceExhausted), "RESOURCE_EXHAUSTED");
  EXPECT_EQ(status_code_name(absl::StatusCode::kUnauthenticated), "UNAUTHENTICATED");
}

}  // namespace
}  // namespace pkv
