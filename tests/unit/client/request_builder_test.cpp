// Words of the command line against the request's fields.
#include "client/request_builder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace pkv::client {
namespace {

using testing::HasSubstr;

TEST(BuildRequest, LeavesToTheServerWhatIsNotSaid) {
  v1::GenerateRequest request;
  ASSERT_EQ(build_request({.prompt = "x"}, request), "");
  EXPECT_EQ(request.prompt(), "x");
  EXPECT_FALSE(request.has_cache_policy());
  EXPECT_FALSE(request.sampling().has_temperature());
  EXPECT_FALSE(request.sampling().has_max_tokens());
}

TEST(BuildRequest, SetsThePolicyAndTheReport) {
  v1::GenerateRequest request;
  ASSERT_EQ(
      build_request({.prompt = "x", .cache = {.policy = "pyramidkv", .budget = "64"}, .report = "layers"}, request),
      "");
  EXPECT_TRUE(request.cache_policy().has_pyramidkv());
  EXPECT_EQ(request.cache_policy().budget().tokens(), 64u);
  EXPECT_EQ(request.cache_report(), v1::CACHE_REPORT_DETAIL_PER_LAYER);
}

TEST(BuildRequest, PassesOnWhatIsWrongWithThePolicy) {
  v1::GenerateRequest request;
  EXPECT_THAT(build_request({.prompt = "x", .cache = {.scope = "all"}}, request), HasSubstr("--scope"));
  EXPECT_THAT(build_request({.prompt = "x", .report = "everything"}, request),
              HasSubstr("none summary layers positions"));
}

}  // namespace
}  // namespace pkv::client
