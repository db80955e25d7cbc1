// Fields travel beside the sentence, never out of it.
#include "server/status/field_error.h"

#include "absl/strings/cord.h"
#include "gtest/gtest.h"

namespace pkv {
namespace {

TEST(FieldError, SaysTheFieldTwice) {
  const absl::Status status = field_error("cache_policy.pins[1].end", "9: beyond: the prompt");
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(), "cache_policy.pins[1].end: 9: beyond: the prompt");
  const auto named = field_error_of(status);
  ASSERT_TRUE(named.has_value());
  EXPECT_EQ(named->field, "cache_policy.pins[1].end");
  EXPECT_EQ(named->description, "9: beyond: the prompt");
}

TEST(FieldError, IsInNoOtherStatus) {
  EXPECT_FALSE(field_error_of(absl::InvalidArgumentError("prompt: is empty")).has_value());
  EXPECT_FALSE(field_error_of(absl::OkStatus()).has_value());
  EXPECT_EQ(with_field(absl::CancelledError("gone"), "prompt"), absl::CancelledError("gone"));
}

TEST(FieldError, MovesWithEverythingElse) {
  absl::Status status = field_error("max_tokens", "is too large", absl::StatusCode::kFailedPrecondition);
  status.SetPayload("other", absl::Cord("kept"));
  const absl::Status moved = with_field(status, "request.sampling.max_tokens");
  EXPECT_EQ(moved.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(moved.message(), "request.sampling.max_tokens: is too large");
  EXPECT_EQ(field_error_of(moved)->field, "request.sampling.max_tokens");
  EXPECT_EQ(field_error_of(moved)->description, "is too large");
  EXPECT_EQ(moved.GetPayload("other"), absl::Cord("kept"));
}

}  // namespace
}  // namespace pkv
