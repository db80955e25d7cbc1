// EstimateCache: the engine's figures as a message, and which requests it refuses.
#include "server/api/estimate_cache.h"

#include <gmock/gmock.h>
#include <google/protobuf/text_format.h>

#include "tests/unit/api/api_fixture.h"

namespace pkv {
namespace {

namespace pb = ::pyramidkv::v1;

class EstimateCacheTest : public ApiTest {
 protected:
  absl::Status estimate(const std::string& text, pb::EstimateCacheResponse& response) {
    pb::EstimateCacheRequest message;
    EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &message)) << text;
    return estimate_cache(message, served_, state_->policies(), response);
  }
  DecodedError refusal(const std::string& text) {
    pb::EstimateCacheResponse response;
    return decode_error(estimate(text, response));
  }
};

TEST_F(EstimateCacheTest, FiguresAndLayers) {
  engine_.answer = [](const Contract::Query& query) {
    EXPECT_EQ(query.prompt_tokens, 60);
    EXPECT_EQ(query.max_tokens, 7);
    EXPECT_EQ(query.policy.kind, PolicyKind::kPyramidKv);
    EXPECT_EQ(query.policy.pins.size(), 1u);
    return Contract{.own = {.plan = {.budget_tokens = 15,
                                     .lane_budgets = {20, 24, 10, 6},
                                     .smallest_budget_tokens = 9,
                                     .smallest_budget_bytes = 200}},
                    .steady_bytes = 300,
                    .peak_bytes = 500,
                    .full_bytes = 1000,
                    .cost = {.workspace_bytes = 70},
                    .refusal = Refusal{.pool_bytes = 400, .largest_budget_tokens = 11}};
  };
  pb::EstimateCacheResponse out;
  const absl::Status status =
      estimate("prompt_tokens: 60 max_tokens: 7 cache_policy { pyramidkv {} pins { end: 2 } }", out);
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_TRUE(out.effective_policy().has_pyramidkv());
  EXPECT_EQ(out.effective_policy().pyramidkv().beta(), 20);
  EXPECT_EQ(out.effective_policy().pins_size(), 1);
  EXPECT_EQ(out.full_bytes(), 1000u);
  EXPECT_EQ(out.peak_bytes(), 500u);
  EXPECT_EQ(out.steady_bytes(), 300u);
  EXPECT_EQ(out.workspace_bytes(), 70u);
  EXPECT_EQ(out.budget_tokens(), 15u);
  EXPECT_EQ(out.smallest_budget_bytes(), 200u);
  EXPECT_EQ(out.smallest_budget_tokens(), 9u);
  EXPECT_EQ(out.largest_budget_tokens(), 11u);
  EXPECT_FALSE(out.admissible_now() || out.admissible_ever());  // which is no error
  ASSERT_EQ(out.layers_size(), 2);                              // of two KV heads each
  EXPECT_EQ(out.layers(0).layer(), 0u);
  EXPECT_EQ(out.layers(0).kept_min(), 20u);
  EXPECT_EQ(out.layers(0).kept_mean(), 22.0);
  EXPECT_EQ(out.layers(0).kept_max(), 24u);
  EXPECT_EQ(out.layers(0).budget_tokens(), 24u);
  EXPECT_FALSE(out.layers(0).has_recall());
  EXPECT_EQ(out.layers(1).layer(), 1u);
  EXPECT_EQ(out.layers(1).kept_min(), 6u);
}

TEST_F(EstimateCacheTest, OfLanesThatShareTheLeastAndTheMostAreTold) {
  engine_.answer = [](const Contract::Query&) {
    return Contract{.own = {.plan = {.budget_tokens = 15,
                                     .lane_budgets = {30, 30, 10, 6},
                                     .shared_budgets = {44, 0},
                                     .smallest_lanes = {9, 0}}}};
  };
  pb::EstimateCacheResponse out;
  ASSERT_TRUE(estimate("prompt_tokens: 60 cache_policy { snapkv {} }", out).ok());
  ASSERT_EQ(out.layers_size(), 2);
  EXPECT_EQ(out.layers(0).kept_min(), 9u);
  EXPECT_EQ(out.layers(0).kept_mean(), 22.0);
  EXPECT_EQ(out.layers(0).kept_max(), 30u);
  EXPECT_EQ(out.layers(0).budget_tokens(), 30u);
  EXPECT_EQ(out.layers(1).kept_min(), 6u);
  EXPECT_EQ(out.layers(1).kept_mean(), 8.0);
}

TEST_F(EstimateCacheTest, WhatIsWrongIsNamed) {
  EXPECT_EQ(refusal("").field, "prompt_tokens");
  EXPECT_EQ(refusal("").reason, "BAD_INPUT");
  const DecodedError prompt = refusal("prompt_tokens: 101");
  EXPECT_EQ(prompt.reason, "CONTEXT_TOO_LONG");
  EXPECT_EQ(prompt.field, "prompt_tokens");
  const DecodedError answer = refusal("prompt_tokens: 100 max_tokens: 4294967295");
  EXPECT_EQ(answer.reason, "CONTEXT_TOO_LONG");
  EXPECT_EQ(answer.field, "max_tokens");
  EXPECT_EQ(answer.metadata.at("max"), "100");
  EXPECT_EQ(answer.metadata.at("got"), "4294967395");
  EXPECT_EQ(refusal("prompt_tokens: 5 cache_policy { snapkv {} budget { tokens: 3 } }").field,
            "cache_policy.budget.tokens");
  EXPECT_EQ(refusal("prompt_tokens: 5 cache_policy { tova {} pin_system_message: true }").field,
            "cache_policy.pin_system_message");
  engine_.answer = [](const Contract::Query&) {
    return refused({.reason = Refusal::Reason::kLength, .positions = 101, .max_positions = 100});
  };
  EXPECT_EQ(refusal("prompt_tokens: 5").field, "max_tokens");
  EXPECT_EQ(refusal("prompt_tokens: 5").reason, "CONTEXT_TOO_LONG");
}

TEST_F(EstimateCacheTest, TheWholeLengthAndNoAnswerAreFine) {
  pb::EstimateCacheResponse out;
  EXPECT_TRUE(estimate("prompt_tokens: 100", out).ok());
  EXPECT_TRUE(out.effective_policy().has_full());
  EXPECT_TRUE(estimate("prompt_tokens: 100 max_tokens: 5000 cache_policy { streaming_llm { position_mode: "
                       "POSITION_MODE_CACHE_RELATIVE } }",
                       out)
                  .ok());
}

}  // namespace
}  // namespace pkv
