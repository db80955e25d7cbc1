// The words of `pyramidkv bench`: what they mean, and what is said of wrong ones.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "client/bench/options.h"

namespace pkv::client {
namespace {

using testing::HasSubstr;

BenchOptions good() {
  BenchOptions options;
  options.rate = "2";
  options.duration = "10";
  return options;
}

TEST(BenchOptions, OpenLoop) {
  BenchOptions options = good();
  options.rate = "1:8";
  options.spacing = "constant";
  options.warmup = "20req";
  options.requests = "7";
  options.seed = "5";
  BenchPlan plan;
  ASSERT_EQ(plan_bench(options, plan), "");
  ASSERT_TRUE(plan.arrivals.has_value());
  EXPECT_EQ(plan.arrivals->rate_from, 1);
  EXPECT_EQ(plan.arrivals->rate_to, 8);
  EXPECT_FALSE(plan.arrivals->poisson);
  EXPECT_EQ(plan.arrivals->warmup.requests, 20);
  EXPECT_EQ(plan.arrivals->seconds, 10);
  EXPECT_EQ(plan.arrivals->requests, 7);
  EXPECT_EQ(plan.arrivals->seed, 5);
  EXPECT_FALSE(plan.concurrency.has_value());
  EXPECT_TRUE(plan.ignore_eos);
}

TEST(BenchOptions, ClosedLoopAndTrace) {
  BenchOptions options = good();
  options.rate = "";
  options.concurrency = "2000";
  BenchPlan closed;
  ASSERT_EQ(plan_bench(options, closed), "");
  EXPECT_EQ(closed.concurrency, 2000);
  EXPECT_EQ(closed.max_in_flight, 2000);  // nothing of a closed loop is dropped
  EXPECT_FALSE(closed.arrivals.has_value());
  options = {};
  options.trace = "t.jsonl";
  options.speed = "2.5";
  BenchPlan trace;
  ASSERT_EQ(plan_bench(options, trace), "");
  EXPECT_EQ(trace.trace, "t.jsonl");
  EXPECT_EQ(trace.speed, 2.5);
}

TEST(BenchOptions, WrongWordsAreNamedWithTheirForms) {
  struct Case {
    std::string BenchOptions::*option;
    const char* word;
    const char* says;
    const char* forms;
  };
  const Case kCases[] = {
      {&BenchOptions::rate, "0", "--rate: '0'", "FROM:TO"},
      {&BenchOptions::rate, "1e-9", "--rate: '1e-9'", "from 0.001"},
      {&BenchOptions::rate, "1:2:3", "--rate: '1:2:3'", "FROM:TO"},
      {&BenchOptions::rate, "nan", "--rate: 'nan'", "FROM:TO"},
      {&BenchOptions::rate, "fast", "--rate: 'fast'", "requests a second"},
      {&BenchOptions::rate, "1e9", "--rate: '1e9'", "from 0.001 to 100000"},
      {&BenchOptions::concurrency, "2", "give one of --rate", "--concurrency N"},
      {&BenchOptions::duration, "-1", "--duration: '-1'", "number of seconds"},
      {&BenchOptions::duration, "inf", "--duration: 'inf'", "number of seconds"},
      {&BenchOptions::requests, "0", "--requests: '0'", "whole number from 1"},
      {&BenchOptions::requests, "2.5", "--requests: '2.5'", "whole number from 1"},
      {&BenchOptions::warmup, "5min", "--warmup: '5min'", "20req"},
      {&BenchOptions::warmup, "-3", "--warmup: '-3'", "20req"},
      {&BenchOptions::speed, "0", "--speed: '0'", "factor"},
      {&BenchOptions::spacing, "even", "--spacing: 'even'", "poisson or constant"},
      {&BenchOptions::prompt_tokens, "many", "--prompt-tokens: 'many'", "lognormal:MEDIAN,SIGMA"},
      {&BenchOptions::max_tokens, "uniform:1", "--max-tokens: 'uniform:1'", "uniform:100-2000"},
      {&BenchOptions::prompt_token_ids, "all", "--prompt-token-ids: 'all'", "text or random"},
      {&BenchOptions::channels, "0", "--channels: '0'", "whole number from 1 to 1024"},
      {&BenchOptions::max_in_flight, "x", "--max-in-flight: 'x'", "whole number"},
      {&BenchOptions::timeout, "0", "--timeout: '0'", "number of seconds"},
      {&BenchOptions::ttft_limit, "1s", "--ttft-limit: '1s'", "number of seconds"},
      {&BenchOptions::itl_limit, "-", "--itl-limit: '-'", "number of seconds"},
      {&BenchOptions::seed, "-1", "--seed: '-1'", "whole number"},
      {&BenchOptions::policies, "full,", "--policies: ''", "NAME[:BUDGET[:SCOPE[:FORMAT]]]"},
      {&BenchOptions::policies, "full@0", "--policies: 'full@0'", "weight"},
      {&BenchOptions::policies, "full@x", "--policies: 'full@x'", "weight"},
      {&BenchOptions::policies, "full,full", "--policies: 'full'", "twice"},
      {&BenchOptions::policies, "snapkv:lots", "--policies: 'snapkv:lots'", "128"},
  };
  for (const Case& wrong : kCases) {
    BenchOptions options = good();
    options.*wrong.option = wrong.word;
    BenchPlan plan;
    const std::string error = plan_bench(options, plan);
    EXPECT_THAT(error, HasSubstr(wrong.says));
    EXPECT_THAT(error, HasSubstr(wrong.forms));
  }
}

TEST(BenchOptions, ALoadNeedsARateAndAnEnd) {
  BenchPlan plan;
  BenchOptions options = good();
  options.rate = "";
  EXPECT_THAT(plan_bench(options, plan), HasSubstr("--trace FILE"));
  options = good();
  options.duration = "";
  EXPECT_THAT(plan_bench(options, plan), HasSubstr("--requests N"));
  options = good();
  options.prompt_file = "text";
  options.prompt_token_ids = "random";
  EXPECT_THAT(plan_bench(options, plan), HasSubstr("exclude each other"));
}

TEST(BenchOptions, MixOfPoliciesWithWeights) {
  std::vector<BenchPolicy> mix;
  ASSERT_EQ(parse_mix("full, snapkv:128@3,pyramidkv:12%:prompt@2,h2o:recall:0.9", mix), "");
  ASSERT_EQ(mix.size(), 4);
  EXPECT_EQ(mix[0].weight, 1);
  EXPECT_EQ(mix[1].text, "snapkv:128");
  EXPECT_EQ(mix[1].weight, 3);
  EXPECT_EQ(mix[1].policy.budget().tokens(), 128);
  EXPECT_EQ(mix[2].weight, 2);
  EXPECT_EQ(mix[2].policy.budget().keep_ratio(), 0.12);
  EXPECT_EQ(mix[3].policy.budget().min_recall(), 0.9);
  mix.clear();
  ASSERT_EQ(parse_mix("", mix), "");
  EXPECT_EQ(mix.at(0).policy.ByteSizeLong(), 0);
}

}  // namespace
}  // namespace pkv::client
