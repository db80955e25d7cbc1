// Requests of a run: the asked lengths, the mix, ids that no other request has.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <set>

#include "client/bench/requests.h"

namespace pkv::client {
namespace {

struct Fixture {
  explicit Fixture(const std::function<void(BenchOptions&)>& change = {}) {
    BenchOptions options;
    options.rate = "1";
    options.requests = "1";
    options.policies = "full,snapkv:16@3";
    options.prompt_tokens = "uniform:5-30";
    options.max_tokens = "uniform:1-9";
    options.seed = "3";
    if (change) change(options);
    EXPECT_EQ(plan_bench(options, plan), "");
    mix = plan.policies;
    pool = {.prefix = {77}, .vocab_size = 500, .max_model_len = 1000};
    for (uint32_t i = 0; i < 12; ++i) pool.tokens.push_back(100 + i);
  }
  BenchRequests requests() const { return {plan, pool, trace, mix, plan.policies.size()}; }

  BenchPlan plan;
  PromptPool pool;
  std::vector<TraceLine> trace;
  std::vector<BenchPolicy> mix;
};

TEST(BenchRequests, LengthsTextAndOptions) {
  const Fixture fixture;
  const BenchRequests requests = fixture.requests();
  std::set<uint32_t> seconds;
  for (uint64_t i = 0; i < 200; ++i) {
    const v1::GenerateRequest request = requests.make(i).request;
    const auto& ids = request.prompt_token_ids().ids();
    ASSERT_GE(ids.size(), 5);
    ASSERT_LE(ids.size(), 30);
    EXPECT_EQ(ids[0], 77);
    seconds.insert(ids[1]);
    // The text in its order, from the beginning again behind its end.
    for (int k = 2; k < ids.size(); ++k) EXPECT_EQ(ids[k], ids[k - 1] == 111 ? 100 : ids[k - 1] + 1);
    EXPECT_GE(request.sampling().max_tokens(), 1);
    EXPECT_LE(request.sampling().max_tokens(), 9);
    EXPECT_EQ(request.sampling().temperature(), 0);
    EXPECT_TRUE(request.sampling().ignore_eos());
  }
  EXPECT_EQ(seconds.size(), 12);  // prompts begin anywhere
}

TEST(BenchRequests, RepeatableButForTheirIds) {
  const Fixture fixture;
  const BenchRequests first = fixture.requests(), second = fixture.requests();
  std::set<std::string> ids;
  int snapkv = 0;
  for (uint64_t i = 0; i < 400; ++i) {
    BenchRequests::Made a = first.make(i), b = second.make(i);
    EXPECT_TRUE(ids.insert(a.request.request_id()).second);
    EXPECT_TRUE(ids.insert(b.request.request_id()).second);
    a.request.clear_request_id();
    b.request.clear_request_id();
    EXPECT_EQ(a.request.SerializeAsString(), b.request.SerializeAsString());
    EXPECT_EQ(a.request.cache_policy().has_snapkv(), a.policy == 1);
    snapkv += a.policy == 1 ? 1 : 0;
  }
  EXPECT_NEAR(snapkv, 300, 40);
}

TEST(BenchRequests, RandomIdsAreOfTheVocabulary) {
  Fixture fixture([](BenchOptions& options) { options.prompt_token_ids = "random"; });
  fixture.pool.tokens.clear();
  fixture.pool.prefix.clear();
  std::set<uint32_t> seen;
  for (uint64_t i = 0; i < 200; ++i) {
    const v1::GenerateRequest request = fixture.requests().make(i).request;
    seen.insert(request.prompt_token_ids().ids().begin(), request.prompt_token_ids().ids().end());
  }
  EXPECT_LT(*seen.rbegin(), 500);
  EXPECT_GT(seen.size(), 450);
}

TEST(BenchRequests, ATraceSaysWhatIsNotDrawn) {
  Fixture fixture;
  ASSERT_EQ(parse_trace(R"({"at": 0, "prompt_tokens": 7, "max_tokens": 2, "policy": "h2o:8"}
{"at": 1, "prompt": "tell me"}
{"at": 2, "prompt_tokens": 100000})",
                        fixture.trace, fixture.mix),
            "");
  const BenchRequests requests = fixture.requests();
  const auto first = requests.make(0);
  EXPECT_EQ(first.policy, 2);
  EXPECT_TRUE(first.request.cache_policy().has_h2o());
  EXPECT_EQ(first.request.prompt_token_ids().ids_size(), 7);
  EXPECT_EQ(first.request.sampling().max_tokens(), 2);
  const auto second = requests.make(1);
  EXPECT_EQ(second.request.prompt(), "tell me");
  EXPECT_LT(second.policy, 2);
  // Too long for the model, and no longer than it takes to be refused.
  EXPECT_EQ(requests.make(2).request.prompt_token_ids().ids_size(), 1001);
}

}  // namespace
}  // namespace pkv::client
