// What the engine counts: distributions, sums and byte-seconds agree with what the requests were told, and snapshots
// are made when something changed and not at every step.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <numeric>
#include <thread>

#include "server/policy/registry.h"
#include "tests/unit/engine/engine_fixture.h"

namespace pkv::test {
namespace {

constexpr int32_t kLayers = 3;

PolicySpec total(PolicyKind kind, int64_t budget) {
  PolicySpec spec = policy(kind, budget);
  spec.budget.scope = BudgetScope::kTotal;
  return spec;
}

// Of one policy.
struct Counts {
  const EngineStats::PolicyTotals& totals;
  const EngineHistograms::Policy& histograms;
};
uint64_t count(const Histogram& histogram) { return histogram.read().count; }
double sum(const Histogram& histogram) { return histogram.read().sum; }

class EngineCounts : public testing::Test {
 protected:
  void start(EngineOptions options = small_options()) {
    engine_.reset();  // a backend serves one engine
    engine_ = make_engine(*tiny_.model, options);
  }
  // Every look at the clock is a millisecond later.
  EngineOptions ticking_options() {
    EngineOptions options = small_options();
    options.clock = [this] { return absl::FromUnixMillis(++milliseconds_); };
    return options;
  }
  Counts of(PolicyKind kind) {
    stats_ = engine_->stats();
    const auto index = static_cast<size_t>(&policy_row(kind) - policy_table().data());
    return {stats_->policies.at(std::string(policy_row(kind).name)), stats_->histograms->policies[index]};
  }

  std::atomic<int64_t> milliseconds_ = 0;
  TinyModel tiny_ = make_tiny_model();
  std::unique_ptr<Engine> engine_;
  std::shared_ptr<const EngineStats> stats_;
};

TEST_F(EngineCounts, EveryRequestAndTokenOnce) {
  start();
  run(*engine_, make_request(random_prompt(90, 1), 7));
  run(*engine_, make_request(random_prompt(40, 1), 1));
  run(*engine_, make_request(random_prompt(50, 1), 0));  // its prompt alone
  auto stopped = std::make_shared<RecordingSink>();
  stopped->at_token = [](int32_t tokens) { return tokens < 4; };
  submit(*engine_, make_request(random_prompt(30, 1), 100), stopped)->wait();
  auto cancelled = std::make_shared<RecordingSink>();
  cancelled->at_token = [&](int32_t tokens) {
    if (tokens == 5) engine_->cancel(cancelled.get());
    return true;
  };
  submit(*engine_, make_request(random_prompt(30, 1), 100), cancelled)->wait();
  ASSERT_EQ(cancelled->status.code(), absl::StatusCode::kCancelled);

  const auto [totals, histograms] = of(PolicyKind::kFull);
  EXPECT_EQ(totals.requests_total, 5u);
  EXPECT_EQ(totals.prompt_tokens_total, 90u + 40 + 50 + 30 + 30);
  EXPECT_EQ(totals.generation_tokens_total, 7u + 1 + 0 + 4 + 5);
  EXPECT_EQ(count(histograms.queue_duration), 5u);
  EXPECT_EQ(count(histograms.prefill_duration), 5u);
  EXPECT_EQ(count(histograms.time_to_first_token), 4u);
  EXPECT_EQ(count(histograms.inter_token_latency), totals.generation_tokens_total - 4);
  EXPECT_EQ(totals.prompts_unchanged_total, 5u);
  EXPECT_EQ(totals.prompts_compressed_total, 0u);
  EXPECT_EQ(count(histograms.compression_duration), 0u);
  // Completed ones only.
  EXPECT_EQ(count(histograms.request_duration), 4u);
  EXPECT_EQ(count(histograms.keep_ratio), 4u);
  EXPECT_EQ(sum(histograms.keep_ratio), 4.0);
  EXPECT_EQ(count(histograms.peak_bytes), 4u);
  EXPECT_EQ(count(histograms.recall_ratio), 4u);  // nothing was cut: 1
  EXPECT_EQ(sum(histograms.recall_ratio), 4.0);
}

TEST_F(EngineCounts, WhoNeverBeganIsNotAmongTheAdmitted) {
  EngineOptions options = small_options();
  options.max_running = 1;
  start(options);
  auto first = std::make_shared<RecordingSink>();
  Gate gate;
  first->at_start = [&] { gate.pass(); };
  submit(*engine_, make_request(random_prompt(20, 3), 2), first);
  gate.wait_for_guest();
  const auto waiting = submit(*engine_, make_request(random_prompt(10, 3), 5, policy(PolicyKind::kH2o, 8)));
  engine_->cancel(waiting.get());
  gate.open();
  waiting->wait();
  first->wait();
  const auto [totals, histograms] = of(PolicyKind::kH2o);
  EXPECT_EQ(totals.requests_total, 1u);
  EXPECT_EQ(totals.prompt_tokens_total, 0u);
  EXPECT_EQ(totals.prompts_compressed_total + totals.prompts_unchanged_total, 0u);
  EXPECT_EQ(count(histograms.queue_duration), 0u);
  EXPECT_EQ(count(histograms.prefill_duration), 0u);
}

TEST_F(EngineCounts, DurationsAreThoseOfTheReplies) {
  start(ticking_options());
  const auto sink = run(*engine_, make_request(random_prompt(90, 1), 6, policy(PolicyKind::kSnapKv, 20)));
  const RequestResult::Timings& timings = sink->result->timings;
  const EngineHistograms::Policy& histograms = of(PolicyKind::kSnapKv).histograms;
  EXPECT_DOUBLE_EQ(sum(histograms.queue_duration), absl::ToDoubleSeconds(timings.queue));
  EXPECT_DOUBLE_EQ(sum(histograms.prefill_duration), absl::ToDoubleSeconds(timings.prefill));
  EXPECT_DOUBLE_EQ(sum(histograms.time_to_first_token), absl::ToDoubleSeconds(timings.time_to_first_token));
  EXPECT_DOUBLE_EQ(sum(histograms.compression_duration), absl::ToDoubleSeconds(timings.compress));
  EXPECT_DOUBLE_EQ(sum(histograms.request_duration), absl::ToDoubleSeconds(timings.total));
  EXPECT_GT(sum(histograms.inter_token_latency), 0);
  EXPECT_LE(sum(histograms.inter_token_latency), absl::ToDoubleSeconds(timings.decode));
}

TEST_F(EngineCounts, CompressionsAreCutsAfterPrompts) {
  start();
  const auto cut = run(*engine_, make_request(random_prompt(90, 1), 3, policy(PolicyKind::kSnapKv, 20)));
  run(*engine_, make_request(random_prompt(12, 1), 3, policy(PolicyKind::kSnapKv, 20)));
  // Nothing to cut after the prompt, and much to evict later.
  const auto later = run(*engine_, make_request(random_prompt(12, 1), 40, total(PolicyKind::kSnapKv, 20)));
  ASSERT_TRUE(later->result->cache.compressed);
  const auto [totals, histograms] = of(PolicyKind::kSnapKv);
  EXPECT_EQ(totals.prompts_compressed_total, 1u);
  EXPECT_EQ(totals.prompts_unchanged_total, 2u);
  EXPECT_EQ(count(histograms.compression_duration), 1u);
  EXPECT_EQ(totals.evicted_entries_total, cut->result->cache.evicted_entries);
  EXPECT_EQ(totals.evicted_while_generating_total, later->result->cache.evicted_entries);
  EXPECT_EQ(count(histograms.keep_ratio), 3u);
  EXPECT_LT(sum(histograms.keep_ratio), 3.0);
}

TEST_F(EngineCounts, RecallIsThatOfTheReports) {
  start();
  const auto seen = run(*engine_, make_request(random_prompt(90, 1), 3, policy(PolicyKind::kSnapKv, 20)));
  run(*engine_, make_request(random_prompt(90, 1), 3, policy(PolicyKind::kRandom, 20)));  // observes nothing
  double recall = 0;
  for (const LayerOutcome& layer : seen->result->cache.layers) {
    recall += std::accumulate(layer.recall.begin(), layer.recall.end(), 0.0) / static_cast<double>(layer.recall.size());
  }
  EXPECT_DOUBLE_EQ(sum(of(PolicyKind::kSnapKv).histograms.recall_ratio), recall / kLayers);
  EXPECT_EQ(count(of(PolicyKind::kRandom).histograms.recall_ratio), 0u);
}

// Of the counters of all policies and of the reports of all replies.
struct Sums {
  double held = 0, full = 0;
  int64_t saved = 0;
  void add(const CacheReport& report) {
    held += report.byte_seconds.held;
    full += report.byte_seconds.full;
  }
};

TEST_F(EngineCounts, ByteSecondsAndBytesAddUpToTheReports) {
  start(ticking_options());
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  const PolicySpec specs[] = {policy(PolicyKind::kFull), policy(PolicyKind::kPyramidKv, 24),
                              total(PolicyKind::kH2o, 20), policy(PolicyKind::kTova, 30)};
  for (uint32_t i = 0; i < 12; ++i) {
    auto request = make_request(random_prompt(40 + 9 * static_cast<int32_t>(i), i), 5 + static_cast<int32_t>(i),
                                specs[i % std::size(specs)]);
    if (i % 4 == 1) request->compare_with = {policy(PolicyKind::kSnapKv, 20), total(PolicyKind::kKeyDiff, 24)};
    sinks.push_back(submit(*engine_, request));
  }
  Sums replies, counters;
  for (const auto& sink : sinks) {
    sink->wait();
    ASSERT_EQ(sink->status, absl::OkStatus());
    const CacheReport& report = sink->result->cache;
    EXPECT_GT(report.byte_seconds.held, 0);
    EXPECT_LE(report.byte_seconds.held, report.byte_seconds.full);
    replies.add(report);
    replies.saved += report.saved_bytes;
    for (const PolicyComparison& rival : sink->result->comparisons) replies.add(rival.cache);
  }
  for (const auto& [name, totals] : engine_->stats()->policies) {
    counters.held += totals.held_byte_seconds_total;
    counters.full += totals.full_equivalent_byte_seconds_total;
    counters.saved +=
        static_cast<int64_t>(totals.reported_full_bytes_total) -
        static_cast<int64_t>(totals.reported_allocated_bytes_total + totals.reported_auxiliary_bytes_total);
  }
  EXPECT_NEAR(counters.held, replies.held, 1e-12 * replies.held);
  EXPECT_NEAR(counters.full, replies.full, 1e-12 * replies.full);
  EXPECT_EQ(counters.saved, replies.saved);
}

TEST_F(EngineCounts, AComparisonsRequestIsItsBaselines) {
  start();
  auto request = make_request(random_prompt(60, 1), 8, policy(PolicyKind::kPyramidKv, 24));
  request->compare_with = {policy(PolicyKind::kSnapKv, 20)};
  run(*engine_, request);
  const auto [totals, histograms] = of(PolicyKind::kSnapKv);
  EXPECT_EQ(totals.requests_total + totals.generation_tokens_total + totals.prompts_compressed_total, 0u);
  EXPECT_EQ(totals.reported_full_bytes_total, 0u);
  EXPECT_EQ(count(histograms.queue_duration) + count(histograms.request_duration), 0u);
  EXPECT_GT(totals.held_byte_seconds_total, 0);
  EXPECT_EQ(of(PolicyKind::kPyramidKv).totals.generation_tokens_total, 8u);
}

TEST_F(EngineCounts, LayersAddUpToWhatIsHeld) {
  EngineOptions options = small_options();
  std::vector<EngineStats::PolicyTotals> seen;
  options.at_step = [&](const EngineStats& stats) { seen.push_back(stats.policies.at("pyramidkv")); };
  start(options);
  run(*engine_, make_request(random_prompt(100, 1), 4, policy(PolicyKind::kPyramidKv, 24)));
  bool pyramid = false;
  for (const EngineStats::PolicyTotals& totals : seen) {
    const std::vector<uint64_t>& layers = totals.layer_held_bytes;
    ASSERT_EQ(layers.size(), size_t{kLayers});
    EXPECT_EQ(std::accumulate(layers.begin(), layers.end(), uint64_t{0}), totals.held_bytes);
    EXPECT_EQ(static_cast<int64_t>(totals.full_equivalent_bytes) -
                  static_cast<int64_t>(totals.allocated_bytes + totals.auxiliary_bytes),
              totals.saved_bytes);
    pyramid = pyramid || (layers[0] > layers[1] && layers[1] > layers[2] && layers[2] > 0);
  }
  EXPECT_TRUE(pyramid);
}

TEST_F(EngineCounts, StepsTellTheirRowsAndSequences) {
  start();
  run(*engine_, make_request(random_prompt(40, 1), 5));
  const EngineHistograms& alone = *engine_->stats()->histograms;
  // Two chunks in each of three layers, then four tokens.
  EXPECT_EQ(count(alone.step_tokens), 6u + 4u);
  EXPECT_EQ(sum(alone.step_tokens), 3 * 40 + 4);
  EXPECT_EQ(count(alone.batch_size), 4u);
  EXPECT_EQ(sum(alone.batch_size), 4);

  start();
  Gate gate;
  auto first = std::make_shared<RecordingSink>();
  first->at_start = [&] { gate.pass(); };
  submit(*engine_, make_request(random_prompt(10, 1), 30), first);
  gate.wait_for_guest();
  const auto second = submit(*engine_, make_request(random_prompt(10, 2), 30));
  gate.open();
  first->wait();
  second->wait();
  const Histogram::Reading batches = engine_->stats()->histograms->batch_size.read();
  EXPECT_EQ(batches.sum, 2 * 29);
  EXPECT_GT(batches.buckets[1], 0u);  // both in one step
}

TEST_F(EngineCounts, SnapshotsComeWithChangesAndTwentyTimesASecond) {
  EngineOptions options = small_options();
  options.clock = [this] { return absl::FromUnixMillis(milliseconds_); };
  start(options);
  const uint64_t before = engine_->stats()->sequence;
  run(*engine_, make_request(random_prompt(20, 1), 100));
  // It came and started, its prompt was read, it ended.
  EXPECT_EQ(engine_->stats()->sequence, before + 3);
  EXPECT_EQ(engine_->stats()->steps_total, 3u + 99u);
  EXPECT_EQ(engine_->stats()->running, 0u);

  auto sink = std::make_shared<RecordingSink>();
  sink->at_token = [&](int32_t) {
    milliseconds_ += 10;
    return true;
  };
  submit(*engine_, make_request(random_prompt(20, 1), 101), sink)->wait();
  // A second of tokens beside them.
  EXPECT_GE(engine_->stats()->sequence, before + 6 + 18);
  EXPECT_LE(engine_->stats()->sequence, before + 6 + 20);
}

TEST_F(EngineCounts, ScrapesBesideARunningEngine) {
  start();
  std::atomic<bool> done = false;
  std::jthread scraper([&] {
    uint64_t sequence = 0, tokens = 0;
    while (!done) {
      const std::shared_ptr<const EngineStats> stats = engine_->stats();
      EXPECT_GE(stats->sequence, sequence);
      sequence = stats->sequence;
      EXPECT_EQ(stats->live_bytes + stats->free_bytes, stats->pool_bytes);
      for (const EngineHistograms::Policy& policy : stats->histograms->policies) {
        const Histogram::Reading reading = policy.inter_token_latency.read();
        EXPECT_EQ(std::accumulate(reading.buckets.begin(), reading.buckets.end(), uint64_t{0}), reading.count);
        (void)policy.request_duration.read();
      }
      const uint64_t now = stats->policies.at("snapkv").generation_tokens_total;
      EXPECT_GE(now, tokens);
      tokens = now;
    }
  });
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (uint32_t i = 0; i < 20; ++i) {
    sinks.push_back(submit(*engine_, make_request(random_prompt(60, i), 20, policy(PolicyKind::kSnapKv, 24))));
  }
  for (const auto& sink : sinks) sink->wait();
  done = true;
  scraper.join();
  EXPECT_EQ(of(PolicyKind::kSnapKv).totals.generation_tokens_total, 400u);
}

}  // namespace
}  // namespace pkv::test
