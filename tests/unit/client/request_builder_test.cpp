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

TEST(BuildRequest, IdsBiasAndStops) {
  v1::GenerateRequest request;
  const RequestOptions options{
      .request_id = "mine", .prompt = "x", .stop_ids = {2, 7}, .logit_bias = {"17:-5", "18=1.5", "19+2", "20-3"}};
  ASSERT_EQ(build_request(options, request), "");
  EXPECT_EQ(request.request_id(), "mine");
  EXPECT_THAT(request.sampling().stop_token_ids(), testing::ElementsAre(2, 7));
  EXPECT_THAT(request.sampling().logit_bias(),
              testing::UnorderedElementsAre(testing::Pair(17, -5), testing::Pair(18, 1.5f), testing::Pair(19, 2),
                                            testing::Pair(20, -3)));
  for (const char* bad : {"17", "a:1", ":1", "17:", "17:much", "-1:2"})
    EXPECT_THAT(build_request({.prompt = "x", .logit_bias = {bad}}, request), HasSubstr("--logit-bias")) << bad;
}

TEST(ParseSeed, RandomOrInRange) {
  std::optional<uint64_t> seed = 3;
  EXPECT_EQ(parse_seed("18446744073709551615", seed), "");
  EXPECT_EQ(seed, ~uint64_t{0});
  EXPECT_EQ(parse_seed("-1", seed), "");
  EXPECT_EQ(seed, std::nullopt);
  for (const char* bad : {"18446744073709551616", "-2", "1.5", "x", ""})
    EXPECT_THAT(parse_seed(bad, seed), HasSubstr("or -1 for a random one")) << bad;
}

TEST(GreedyUnlessAsked, AnyWordAboutSamplingAsks) {
  RequestOptions options;
  greedy_unless_asked(options);
  EXPECT_EQ(options.temperature, 0);
  for (RequestOptions asked :
       {RequestOptions{.top_p = 0.9f}, RequestOptions{.min_p = 0.1f}, RequestOptions{.seed = 7}}) {
    greedy_unless_asked(asked);
    EXPECT_FALSE(asked.temperature);
  }
  RequestOptions warm{.temperature = 0.7f};
  greedy_unless_asked(warm);
  EXPECT_EQ(warm.temperature, 0.7f);
}

}  // namespace
}  // namespace pkv::client
