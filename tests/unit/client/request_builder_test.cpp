// Words of the command line against the fields they set, and the complaints about wrong ones.
#include "client/request_builder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace pkv::client {
namespace {

using testing::HasSubstr;

TEST(ParseBudget, TokensSharesAndBytes) {
  v1::CacheBudget budget;
  EXPECT_EQ(parse_budget("128", budget), "");
  EXPECT_EQ(budget.tokens(), 128u);
  EXPECT_EQ(parse_budget("12.5%", budget), "");
  EXPECT_DOUBLE_EQ(budget.keep_ratio(), 0.125);
  EXPECT_EQ(parse_budget("4MiB", budget), "");
  EXPECT_EQ(budget.bytes(), uint64_t{4} << 20);
  EXPECT_EQ(parse_budget("1.5 kB", budget), "");
  EXPECT_EQ(budget.bytes(), 1500u);
}

TEST(ParseBudget, NamesWhatIsWrong) {
  for (const char* text : {"", "many", "12 apples", "-3", "%", "1e300GiB", "-1MiB", "nanMiB"}) {
    v1::CacheBudget budget;
    EXPECT_THAT(parse_budget(text, budget), HasSubstr("--budget")) << text;
  }
}

TEST(BuildRequest, LeavesToTheServerWhatIsNotSaid) {
  v1::GenerateRequest request;
  ASSERT_EQ(build_request({.prompt = "x"}, request), "");
  EXPECT_EQ(request.prompt(), "x");
  EXPECT_FALSE(request.has_cache_policy());
  EXPECT_FALSE(request.sampling().has_temperature());
  EXPECT_FALSE(request.sampling().has_max_tokens());
}

TEST(BuildRequest, SetsThePolicyAndItsParameters) {
  v1::GenerateRequest request;
  ASSERT_EQ(build_request({.prompt = "x", .policy = "pyramidkv", .budget = "64", .scope = "prompt", .window = 16, .beta = 10.5,
                           .allocation = "factory", .kv_dtype = "f32", .report = "layers"},
                          request),
            "");
  const v1::CachePolicy& policy = request.cache_policy();
  EXPECT_EQ(policy.pyramidkv().window_tokens(), 16u);
  EXPECT_EQ(policy.pyramidkv().beta(), 10.5);
  EXPECT_EQ(policy.pyramidkv().allocation(), v1::PYRAMID_ALLOCATION_FACTORY);
  EXPECT_FALSE(policy.pyramidkv().has_kernel_size());
  EXPECT_EQ(policy.budget().tokens(), 64u);
  EXPECT_EQ(policy.budget().scope(), v1::BUDGET_SCOPE_PROMPT);
  EXPECT_EQ(policy.kv_dtype(), v1::KV_DTYPE_F32);
  EXPECT_EQ(request.cache_report(), v1::CACHE_REPORT_DETAIL_PER_LAYER);
}

TEST(BuildRequest, RefusesParametersOfAnotherPolicy) {
  v1::GenerateRequest request;
  EXPECT_THAT(build_request({.prompt = "x", .policy = "snapkv", .beta = 2}, request), HasSubstr("--beta"));
  EXPECT_THAT(build_request({.prompt = "x", .policy = "full", .window = 2}, request), HasSubstr("--window"));
  EXPECT_THAT(build_request({.prompt = "x", .policy = "nothing"}, request), HasSubstr("'nothing' is no policy"));
  EXPECT_THAT(build_request({.prompt = "x", .policy = "snapkv", .preset = "small"}, request), HasSubstr("exclude"));
  EXPECT_THAT(build_request({.prompt = "x", .policy = "snapkv", .pooling = "median"}, request), HasSubstr("max avg none"));
  EXPECT_THAT(build_request({.prompt = "x", .scope = "all"}, request), HasSubstr("--scope"));
}

}  // namespace
}  // namespace pkv::client
