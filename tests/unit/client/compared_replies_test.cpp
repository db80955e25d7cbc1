// A comparison as one reply a policy.
#include "client/compared_replies.h"

#include <gtest/gtest.h>

namespace pkv::client {
namespace {

TEST(ComparedReplies, TheBaselineThenEveryPolicy) {
  v1::CompareResponse comparison;
  v1::GenerateResponse& baseline = *comparison.mutable_baseline();
  baseline.set_request_id("mine");
  baseline.set_model("tiny");
  baseline.add_choices()->set_text("the answer");
  baseline.mutable_usage()->set_prompt_tokens(10);
  baseline.mutable_usage()->set_completion_tokens(4);
  baseline.mutable_cache()->set_policy_name("full");
  baseline.mutable_cache()->set_workspace_bytes(99);
  baseline.mutable_timings()->mutable_decode()->set_seconds(9);
  v1::Comparison& rival = *comparison.add_comparisons();
  rival.set_text("another");
  for (const uint32_t id : {5, 6, 7}) rival.add_token_ids(id);
  rival.mutable_cache()->set_policy_name("snapkv");
  const std::vector<v1::GenerateResponse> replies = compared_replies(comparison);
  ASSERT_EQ(replies.size(), 2);
  EXPECT_EQ(replies[0].choices(0).text(), "the answer");
  EXPECT_EQ(replies[0].usage().completion_tokens(), 4);
  EXPECT_FALSE(replies[0].has_timings());  // they are of all policies together
  EXPECT_EQ(replies[0].cache().workspace_bytes(), 0);
  EXPECT_EQ(replies[1].request_id(), "mine");
  EXPECT_EQ(replies[1].model(), "tiny");
  EXPECT_EQ(replies[1].choices(0).text(), "another");
  EXPECT_EQ(replies[1].choices(0).token_ids_size(), 3);
  EXPECT_EQ(replies[1].usage().prompt_tokens(), 10);
  EXPECT_EQ(replies[1].usage().completion_tokens(), 3);
  EXPECT_EQ(replies[1].usage().total_tokens(), 13);
  EXPECT_EQ(replies[1].cache().policy_name(), "snapkv");
  EXPECT_FALSE(replies[1].has_timings());
}

}  // namespace
}  // namespace pkv::client
