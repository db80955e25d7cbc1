// The figures: cache reports, timings, snapshots, and that what is held never exceeds what was promised.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <numeric>

#include "server/policy/registry.h"
#include "tests/support/shaped_policy.h"
#include "tests/unit/engine/engine_fixture.h"

namespace pkv::test {
namespace {

constexpr int32_t kLayers = 3, kHeads = 2;
constexpr uint64_t kEntryBytes = 2 * 16 * 2;  // key and value, head size 16, f16

class EngineReport : public testing::Test {
 protected:
  TinyModel tiny_ = make_tiny_model();
  std::unique_ptr<Engine> engine_ = make_engine(*tiny_.model, watched_options());
};

TEST_F(EngineReport, FullKeepsEverything) {
  const auto sink = run(*engine_, make_request(random_prompt(90, 1), 11));
  const CacheReport& report = sink->result->cache;
  EXPECT_EQ(sink->result->prompt_tokens, 90);
  EXPECT_EQ(sink->result->completion_tokens, 11);
  EXPECT_EQ(report.logical_tokens, 100);  // the last token is never written
  EXPECT_EQ(report.full_bytes, 100 * kLayers * kHeads * kEntryBytes);
  EXPECT_EQ(report.bytes.held, report.full_bytes);
  EXPECT_EQ(report.bytes.allocated, uint64_t{kLayers * kHeads} * 13 * 512);  // 13 pages of 8 slots hold 100 entries
  EXPECT_EQ(report.saved_bytes, static_cast<int64_t>(report.full_bytes) -
                                    static_cast<int64_t>(report.bytes.allocated + report.bytes.auxiliary));
  EXPECT_LT(report.saved_bytes, 0);
  EXPECT_EQ(report.budget_tokens, 90);
  EXPECT_FALSE(report.compressed);
  EXPECT_EQ(report.compressions, 0u);
  EXPECT_EQ(report.evicted_entries, 0u);
  EXPECT_EQ(report.not_compressed_reason, "policy full keeps everything");
  EXPECT_EQ(report.layers.size(), size_t{kLayers});
}

TEST_F(EngineReport, ABudgetAboveThePromptSaysWhyNothingWasCut) {
  const CacheReport report =
      run(*engine_, make_request(random_prompt(90, 1), 2, policy(PolicyKind::kPyramidKv, 128)))->result->cache;
  EXPECT_EQ(report.not_compressed_reason.rfind("prompt of 90 tokens is within the budget of ", 0), 0u)
      << report.not_compressed_reason;
}

TEST_F(EngineReport, WhatWasCutIsCounted) {
  auto request = make_request(random_prompt(200, 1), 5, policy(PolicyKind::kSnapKv, 40));
  request->record_positions = true;
  const CacheReport report = run(*engine_, request)->result->cache;
  EXPECT_TRUE(report.compressed);
  EXPECT_EQ(report.compressions, uint32_t{kLayers});
  EXPECT_EQ(report.evicted_entries, uint64_t{kLayers * kHeads} * (200 - 40));
  EXPECT_EQ(report.bytes.held, uint64_t{kLayers * kHeads} * (40 + 4) * kEntryBytes);
  EXPECT_EQ(report.full_bytes, 204 * kLayers * kHeads * kEntryBytes);
  EXPECT_GT(report.saved_bytes, 0);
  EXPECT_TRUE(report.not_compressed_reason.empty());
  ASSERT_EQ(report.layers.size(), size_t{kLayers});
  for (const LayerOutcome& layer : report.layers) {
    EXPECT_THAT(layer.kept, testing::ElementsAre(40, 40));
    ASSERT_EQ(layer.kept_positions.size(), size_t{kHeads});
    for (const auto& positions : layer.kept_positions) {
      EXPECT_EQ(positions.size(), 40u);
      EXPECT_EQ(positions.back(), 199);
      EXPECT_TRUE(std::is_sorted(positions.begin(), positions.end()));
    }
  }
  // Residual stream and 8 observed rows, and the engine's own tensors.
  EXPECT_GT(report.workspace_bytes, 200u * 64 * sizeof(float));
}

class EngineReportOfAnyDivision : public EngineReport, public testing::WithParamInterface<LaneShape> {
 protected:
  EngineReportOfAnyDivision() {
    EngineOptions options = watched_options();
    options.make_policy = shaped_policies(GetParam());
    engine_.reset();  // a backend serves one engine
    engine_ = make_engine(*tiny_.model, options);
  }
};

TEST_P(EngineReportOfAnyDivision, NothingIsHeldBeyondTheFootprint) {
  const bool exact = GetParam() != LaneShape::kTotals;  // where lanes share: of the division that needs most
  for (const PolicySpec& spec : {policy(PolicyKind::kFull), policy(PolicyKind::kSnapKv, 33),
                                 policy(PolicyKind::kPyramidKv, 50), policy(PolicyKind::kPyramidKv, 150)}) {
    for (const int32_t prompt : {31, 32, 33, 200}) {
      const Contract promised = *engine_->estimate({.policy = spec, .prompt_tokens = prompt, .max_tokens = 20});
      const CacheReport report = run(*engine_, make_request(random_prompt(prompt, 3), 20, spec))->result->cache;
      // Both are exact: pages and when they go back are arithmetic.
      const uint64_t steady = report.bytes.allocated + report.bytes.auxiliary;
      EXPECT_LE(report.bytes.peak, promised.peak_bytes);
      EXPECT_LE(steady, promised.steady_bytes);
      if (exact) {
        EXPECT_EQ(report.bytes.peak, promised.peak_bytes);
        EXPECT_EQ(steady, promised.steady_bytes);
      }
      EXPECT_EQ(report.full_bytes, promised.full_bytes);
      EXPECT_EQ(report.budget_tokens, promised.own.plan.budget_tokens);
      EXPECT_LE(promised.steady_bytes, promised.peak_bytes);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, EngineReportOfAnyDivision, testing::ValuesIn(kLaneShapes),
                         [](const auto& shape) { return name_of(shape.param); });

TEST_F(EngineReport, SeveralAtOnceStayWithinWhatIsReserved) {
  EngineOptions options = watched_options();
  options.pool_bytes = 500 * 512;
  engine_.reset();  // a backend serves one engine
  const auto engine = make_engine(*tiny_.model, options);
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  bool within = true;
  uint32_t most_running = 0;
  for (uint32_t i = 0; i < 12; ++i) {
    auto sink = std::make_shared<RecordingSink>();
    sink->at_token = [&](int32_t) {
      const EngineStats stats = *engine->stats();
      within = within && stats.live_bytes <= stats.reserved_bytes && stats.reserved_bytes <= stats.pool_bytes &&
               stats.live_bytes + stats.free_bytes == stats.pool_bytes;
      most_running = std::max(most_running, stats.running);
      return true;
    };
    const int32_t prompt = 40 + 30 * static_cast<int32_t>(i % 4);
    sinks.push_back(
        submit(*engine, make_request(random_prompt(prompt, i), 15, policy(PolicyKind::kPyramidKv, 24)), sink));
  }
  for (const auto& sink : sinks) {
    sink->wait();
    EXPECT_EQ(sink->status, absl::OkStatus());
  }
  EXPECT_TRUE(within);
  EXPECT_GT(most_running, 3u);
}

TEST_F(EngineReport, SnapshotsCountTokensAndEnds) {
  run(*engine_, make_request(random_prompt(50, 1), 7));
  run(*engine_, make_request(random_prompt(60, 1), 3, policy(PolicyKind::kSnapKv, 20)));
  const EngineStats stats = *engine_->stats();
  EXPECT_EQ(stats.running + stats.waiting, 0u);
  EXPECT_EQ(stats.policies.size(), policy_table().size());
  const EngineStats::PolicyTotals& full = stats.policies.at("full");
  EXPECT_EQ(full.prompt_tokens_total, 50u);
  EXPECT_EQ(full.generation_tokens_total, 7u);
  EXPECT_EQ(full.finished_total.at("length"), 1u);
  const EngineStats::PolicyTotals& snapkv = stats.policies.at("snapkv");
  EXPECT_EQ(snapkv.generation_tokens_total, 3u);
  EXPECT_EQ(snapkv.evicted_entries_total, uint64_t{kLayers * kHeads} * 40);
  EXPECT_EQ(snapkv.held_bytes, 0u);
  EXPECT_EQ(stats.policies.at("pyramidkv").requests_total, 0u);
  // 7 tokens: 6 decode steps follow 2 chunks in each of 3 layers; 3 tokens: 2 decode steps likewise.
  EXPECT_EQ(stats.steps_total, 6u + 6u + 6u + 2u);
}

TEST_F(EngineReport, ASnapshotShowsARequestInItsPhases) {
  auto sink = std::make_shared<RecordingSink>();
  std::vector<EngineStats> seen;
  sink->at_token = [&](int32_t) {
    seen.push_back(*engine_->stats());
    return true;
  };
  auto request = make_request(random_prompt(100, 1), 3, policy(PolicyKind::kSnapKv, 16));
  request->id = "seen";
  submit(*engine_, request, sink)->wait();
  // The first token comes at the end of the last unit of the prefill, before that step's snapshot.
  ASSERT_EQ(seen.size(), 3u);
  ASSERT_EQ(seen[0].requests.size(), 1u);
  EXPECT_EQ(seen[0].requests[0].phase, "prefill");
  EXPECT_EQ(seen[0].requests[0].policy, "snapkv");
  EXPECT_EQ(seen[0].requests[0].id, "seen");
  // Two layers whole and three of the four chunks of the last.
  EXPECT_EQ(seen[0].requests[0].full_bytes, (2 * 100 + 96) * kHeads * kEntryBytes);
  EXPECT_EQ(seen[0].requests[0].held_bytes, (2 * 16 + 96) * kHeads * kEntryBytes);
  EXPECT_EQ(seen[1].requests[0].phase, "decode");
  EXPECT_EQ(seen[1].requests[0].generated_tokens, 1);
  EXPECT_EQ(seen[2].requests[0].full_bytes, 101 * kLayers * kHeads * kEntryBytes);
  EXPECT_EQ(seen[2].policies.at("snapkv").held_bytes, 17 * kLayers * kHeads * kEntryBytes);
  EXPECT_GT(seen[0].workspace_bytes, seen[1].workspace_bytes);  // the residual stream went back
  EXPECT_LT(seen[0].sequence, seen[1].sequence);
}

TEST_F(EngineReport, ProgressGrowsAndIsNotToldMoreThanTenTimesASecond) {
  for (const int64_t step_ms : {200, 0}) {  // by how much the clock moves whenever it is looked at
    std::atomic<int64_t> milliseconds = 0;
    EngineOptions options = small_options();
    options.clock = [&] { return absl::FromUnixMillis(milliseconds += step_ms); };
    engine_.reset();  // a backend serves one engine
    const auto engine = make_engine(*tiny_.model, options);
    const auto sink = run(*engine, make_request(random_prompt(128, 1), 2));
    // 3 layers of 4 chunks; the last unit brings the first token instead.
    ASSERT_EQ(sink->progress.size(), step_ms == 0 ? 0u : 11u);
    for (size_t i = 0; i < sink->progress.size(); ++i) {
      EXPECT_DOUBLE_EQ(sink->progress[i], static_cast<double>(i + 1) / 12);
    }
  }
}

TEST_F(EngineReport, TimingsAndByteSecondsFollowTheClock) {
  // The clock moves by one second with every generated token and not otherwise.
  std::atomic<int64_t> seconds = 0;
  EngineOptions options = small_options();
  options.clock = [&] { return absl::FromUnixSeconds(seconds); };
  engine_.reset();  // a backend serves one engine
  const auto engine = make_engine(*tiny_.model, options);
  auto sink = std::make_shared<RecordingSink>();
  sink->at_token = [&](int32_t) {
    ++seconds;
    return true;
  };
  submit(*engine, make_request(random_prompt(64, 1), 4), sink)->wait();
  const RequestResult::Timings& timings = sink->result->timings;
  EXPECT_EQ(timings.queue, absl::ZeroDuration());
  EXPECT_EQ(timings.prefill, absl::ZeroDuration());
  EXPECT_EQ(timings.decode, absl::Seconds(4));
  EXPECT_EQ(timings.total, timings.queue + timings.prefill + timings.decode);
  // Held between snapshots, each a second apart: three layers but for the last chunk of 32 rows, then 64, 65 and 66
  // tokens.
  const double lanes = kLayers * kHeads * static_cast<double>(kEntryBytes);
  const double prefill = (3 * 64 - 32) * kHeads * static_cast<double>(kEntryBytes);
  EXPECT_DOUBLE_EQ(engine->stats()->policies.at("full").held_byte_seconds_total, prefill + (64 + 65 + 66) * lanes);
}

}  // namespace
}  // namespace pkv::test
