// What calls add up to, and what table and JSON say of it.
#include <gmock/gmock.h>
#include <google/protobuf/struct.pb.h>
#include <gtest/gtest.h>

#include "client/bench/json_reader.h"
#include "client/bench/progress.h"
#include "client/bench/report.h"

namespace pkv::client {
namespace {

using testing::ContainsRegex;
using testing::HasSubstr;

BenchOutcome completed(size_t policy, double first_token) {
  BenchOutcome outcome{.policy = policy, .measured = true, .ended = BenchClock::now()};
  outcome.first_token = first_token;
  outcome.total = first_token + 0.2;
  outcome.gaps = {0.1f, 0.1f};
  outcome.admitted = outcome.completed = true;
  outcome.end.mutable_usage()->set_prompt_tokens(10);
  outcome.end.mutable_usage()->set_completion_tokens(3);
  auto& cache = *outcome.end.mutable_cache();
  cache.set_policy_name(policy == 0 ? "full" : "snapkv");
  cache.set_full_bytes(1000);
  cache.set_held_bytes(policy == 0 ? 1000 : 250);
  cache.set_saved_bytes(policy == 0 ? -24 : 700);
  if (policy == 1) cache.mutable_recall()->set_mean(0.9);
  return outcome;
}

BenchOutcome unanswered(const char* code, const char* reason, bool admitted) {
  BenchOutcome outcome{.policy = 1, .measured = true, .ended = BenchClock::now()};
  outcome.code = code;
  outcome.reason = reason;
  outcome.admitted = admitted;
  return outcome;
}

struct Fixture {
  Fixture() {
    BenchOptions options;
    options.rate = "2";
    options.duration = "5";
    options.policies = "full,snapkv:64";
    options.ttft_limit = "0.5";
    options.itl_limit = "0.11";
    EXPECT_EQ(plan_bench(options, plan), "");
    BenchOutcome warmup = completed(0, 9);
    warmup.measured = false;
    record.add(warmup, false);
    record.add(completed(0, 0.25), false);
    record.add(completed(1, 0.25), false);
    record.add(completed(1, 0.75), false);
    record.add(unanswered("RESOURCE_EXHAUSTED", "QUEUE_FULL", false), false);
    record.add(unanswered("UNAVAILABLE", "", false), false);
    record.add(unanswered("CANCELLED", "", true), true);
    record.drop(1, true);
  }
  BenchReport report() const {
    return {.plan = plan,
            .mix = plan.policies,
            .record = record,
            .target = "h:1",
            .model = "tiny",
            .server_version = "9",
            .started_at = "now",
            .seconds = 5};
  }
  BenchPlan plan;
  BenchRecord record{2, {.ttft = 0.5, .itl = 0.11}};
};

TEST(BenchRecord, EveryCallIsCountedOnce) {
  const Fixture fixture;
  const BenchFigures& all = fixture.record.all();
  EXPECT_EQ(all.calls(), 7);
  EXPECT_EQ(all.sums.completed, 3);
  EXPECT_EQ(all.refused, 1);
  EXPECT_EQ(all.failed, 1);
  EXPECT_EQ(all.cancelled, 1);
  EXPECT_EQ(all.dropped, 1);
  EXPECT_EQ(all.within_limits, 2);
  EXPECT_THAT(all.refusals, testing::ElementsAre(testing::Pair("QUEUE_FULL", 1)));
  EXPECT_THAT(all.errors, testing::ElementsAre(testing::Pair("UNAVAILABLE", 1)));
  EXPECT_EQ(all.inter_token.count(), all.sums.generated_tokens - all.first_token.count());
  EXPECT_EQ(fixture.record.policy(0).calls() + fixture.record.policy(1).calls(), all.calls());
  EXPECT_EQ(fixture.record.warmup_calls(), 1);
}

TEST(BenchRecord, SumsHaveTheWarmupByTheServersNames) {
  const Fixture fixture;
  const auto& sums = fixture.record.sums();
  EXPECT_EQ(sums.at("full").completed, 2);
  EXPECT_EQ(sums.at("full").saved_bytes, -48);
  EXPECT_EQ(sums.at("snapkv").completed, 2);
  EXPECT_EQ(sums.at("snapkv").saved_bytes, 1400);
  EXPECT_EQ(fixture.record.all().sums.saved_bytes, -24 + 1400);
}

TEST(BenchRecord, AReasonBehindAdmissionIsAFailure) {
  BenchRecord record(2, {});
  record.add(unanswered("FAILED_PRECONDITION", "RECALL_NOT_REACHED", true), false);
  EXPECT_EQ(record.all().failed, 1);
  EXPECT_EQ(record.all().refused, 0);
  EXPECT_TRUE(record.any_unanswered());
  EXPECT_FALSE(record.any_completed());
}

TEST(BenchRecord, WordsOfTheServerAreBounded) {
  BenchRecord record(2, {});
  for (int i = 0; i < 500; ++i) record.add(unanswered("ABORTED", ("R" + std::to_string(i)).c_str(), false), false);
  record.add(unanswered("ABORTED", "R7", false), false);
  EXPECT_EQ(record.all().refusals.size(), 65);
  EXPECT_EQ(record.all().refusals.at("R7"), 2);
  EXPECT_EQ(record.all().refusals.at("OTHER"), 436);
  BenchRecord steered(2, {});
  steered.add(unanswered("ABORTED", "\x1b[2J", false), false);
  EXPECT_EQ(steered.all().refusals.count("??2J"), 1);
}

TEST(ProgressLine, ShareAndCounts) {
  const std::string line = progress_line({.seconds = 20,
                                          .done_share = 0.5,
                                          .started = 40,
                                          .in_flight = 3,
                                          .completed = 36,
                                          .unsuccessful = 1,
                                          .generated_tokens = 500});
  EXPECT_EQ(
      line,
      "[############............]  50 %  20 s  started 40  in flight 3  completed 36  unsuccessful 1  25.0 tok/s");
}

TEST(BenchTable, ShowsAllAndEveryPolicy) {
  const std::string table = bench_table(Fixture().report());
  EXPECT_THAT(table, HasSubstr("open loop, 2 requests/s, Poisson, seed 0; 5.0 s measured, 1 calls of warm-up"));
  EXPECT_THAT(table, ContainsRegex("all +full +snapkv:64\n"));
  EXPECT_THAT(table, ContainsRegex("calls +7 +1 +6\n"));
  EXPECT_THAT(table, ContainsRegex("completed +3 +1 +2\n"));
  EXPECT_THAT(table, ContainsRegex("within the limits +33\\.3 % +100\\.0 % +20\\.0 %\n"));
  EXPECT_THAT(table, ContainsRegex("first token max, ms +750\\.0 +250\\.0 +750\\.0\n"));
  EXPECT_THAT(table, ContainsRegex("generated tokens/s +1\\.80 +0\\.60 +1\\.20\n"));
  EXPECT_THAT(table, ContainsRegex("attention kept, mean +90\\.0 % +- +90\\.0 %\n"));
  EXPECT_THAT(table, ContainsRegex("saved, sum +1\\.3 KiB +nothing +1\\.4 KiB\n"));
  EXPECT_THAT(table, ContainsRegex("saved share +45\\.9 % +- +70\\.0 %\n"));
  EXPECT_THAT(table, HasSubstr("refused with QUEUE_FULL: 1\n"));
  EXPECT_THAT(table, HasSubstr("failed with UNAVAILABLE: 1\n"));
}

TEST(BenchJson, HasParametersFiguresAndSums) {
  google::protobuf::Struct json;
  ASSERT_EQ(read_json_object(bench_json(Fixture().report()), json), "");
  const auto& fields = json.fields();
  EXPECT_EQ(fields.at("parameters").struct_value().fields().at("policies").string_value(), "full,snapkv:64");
  EXPECT_TRUE(fields.at("parameters").struct_value().fields().at("trace").has_null_value());
  const auto& all = fields.at("all").struct_value().fields();
  EXPECT_EQ(all.at("calls").struct_value().fields().at("completed").number_value(), 3);
  EXPECT_EQ(all.at("refused_by_reason").struct_value().fields().at("QUEUE_FULL").number_value(), 1);
  EXPECT_EQ(all.at("goodput").struct_value().fields().at("within_limits").number_value(), 2);
  EXPECT_EQ(all.at("inter_token_seconds").struct_value().fields().at("count").number_value(), 6);
  EXPECT_EQ(all.at("sums").struct_value().fields().at("saved_bytes").number_value(), 1376);
  const auto& policies = fields.at("policies").list_value().values();
  ASSERT_EQ(policies.size(), 2);
  EXPECT_EQ(policies[1].struct_value().fields().at("policy").string_value(), "snapkv:64");
  const auto& sums = fields.at("server_sums_with_warmup").struct_value().fields();
  EXPECT_EQ(sums.at("full").struct_value().fields().at("prompt_tokens").number_value(), 20);
}

}  // namespace
}  // namespace pkv::client
