// The cache report, usage and timings as messages.
#include "server/api/conversion.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "server/api/times.h"

namespace pkv {
namespace {

namespace pb = ::pyramidkv::v1;
using ::testing::ElementsAre;

CacheReport report() {
  CacheReport report{.budget_tokens = 10,
                     .logical_tokens = 100,
                     .full_bytes = 1000,
                     .bytes = {.held = 100, .allocated = 128, .auxiliary = 8, .peak = 300},
                     .saved_bytes = 864,
                     .evicted_entries = 360,
                     .compressions = 2,
                     .compressed = true,
                     .workspace_bytes = 77};
  report.layers.push_back(
      {.budget_tokens = 12, .kept = {12, 10}, .recall = {0.5, 1.0}, .kept_positions = {{1, 2}, {3}}});
  report.layers.push_back({.budget_tokens = 8,
                           .kept = {8, 8},
                           .recall = {0.75, 0.75},
                           .kept_positions = {{4}, {5, 6}},
                           .final_positions = {{4}, {6, 7}}});
  return report;
}

const PolicySpec kSpec{.kind = PolicyKind::kSnapKv, .budget = {.kind = BudgetKind::kTokens, .tokens = 10}};

TEST(Conversion, SummaryHasNoLayers) {
  pb::CacheReport out;
  set_report(report(), kSpec, ReportDetail::kSummary, out);
  EXPECT_EQ(out.policy_name(), "snapkv");
  EXPECT_EQ(out.effective_policy().budget().tokens(), 10u);
  EXPECT_EQ(out.budget_tokens(), 10u);
  EXPECT_EQ(out.logical_tokens(), 100u);
  EXPECT_EQ(out.full_bytes(), 1000u);
  EXPECT_EQ(out.held_bytes(), 100u);
  EXPECT_EQ(out.allocated_bytes(), 128u);
  EXPECT_EQ(out.auxiliary_bytes(), 8u);
  EXPECT_EQ(out.peak_bytes(), 300u);
  EXPECT_EQ(out.saved_bytes(), 864);
  EXPECT_EQ(out.evicted_entries(), 360u);
  EXPECT_EQ(out.compressions(), 2u);
  EXPECT_TRUE(out.compressed());
  EXPECT_EQ(out.workspace_bytes(), 77u);
  EXPECT_EQ(out.recall().mean(), 0.75);
  EXPECT_EQ(out.recall().min(), 0.5);
  EXPECT_EQ(out.layers_size(), 0);
}

TEST(Conversion, APromptReadByPatterns) {
  pb::CacheReport out;
  set_report(report(), kSpec, ReportDetail::kSummary, out);
  EXPECT_FALSE(out.has_prefill());
  CacheReport sparse = report();
  sparse.prefill = {.attended_share = 0.25, .lost_mean = 0.01, .lost_max = 0.125, .measured_rows = 30};
  set_report(sparse, kSpec, ReportDetail::kSummary, out);
  EXPECT_EQ(out.prefill().attended_share(), 0.25);
  EXPECT_EQ(out.prefill().lost_mean(), 0.01);
  EXPECT_EQ(out.prefill().lost_max(), 0.125);
  EXPECT_EQ(out.prefill().measured_rows(), 30u);
}

TEST(Conversion, LayersAndPositions) {
  pb::CacheReport out;
  set_report(report(), kSpec, ReportDetail::kPerLayer, out);
  ASSERT_EQ(out.layers_size(), 2);
  EXPECT_EQ(out.layers(0).layer(), 0u);
  EXPECT_EQ(out.layers(0).budget_tokens(), 12u);
  EXPECT_EQ(out.layers(0).kept_min(), 10u);
  EXPECT_EQ(out.layers(0).kept_mean(), 11.0);
  EXPECT_EQ(out.layers(0).kept_max(), 12u);
  EXPECT_EQ(out.layers(0).recall().min(), 0.5);
  EXPECT_EQ(out.layers(1).layer(), 1u);
  EXPECT_EQ(out.layers(0).heads_size(), 0);

  out.Clear();
  set_report(report(), kSpec, ReportDetail::kPositions, out);
  ASSERT_EQ(out.layers(1).heads_size(), 2);
  EXPECT_EQ(out.layers(1).heads(1).kv_head(), 1u);
  EXPECT_THAT(out.layers(1).heads(1).positions(), ElementsAre(5, 6));
  EXPECT_THAT(out.layers(1).heads(1).final_positions(), ElementsAre(6, 7));
  EXPECT_EQ(out.layers(0).heads(1).final_positions_size(), 0);
}

TEST(Conversion, RecallIsOneWhereNothingWasCutAndAbsentWhereNothingWasSeen) {
  CacheReport whole = report();
  whole.compressed = false;
  for (LayerOutcome& layer : whole.layers) layer.recall.clear();
  pb::CacheReport out;
  set_report(whole, {}, ReportDetail::kPerLayer, out);
  EXPECT_EQ(out.recall().mean(), 1.0);
  EXPECT_EQ(out.layers(1).recall().min(), 1.0);

  whole.compressed = true;
  out.Clear();
  set_report(whole, kSpec, ReportDetail::kPerLayer, out);
  EXPECT_FALSE(out.has_recall());
  EXPECT_FALSE(out.layers(0).has_recall());
}

TEST(Conversion, Durations) {
  google::protobuf::Duration out;
  set_duration(absl::Milliseconds(-1500), out);
  EXPECT_EQ(out.seconds(), -1);
  EXPECT_EQ(out.nanos(), -500'000'000);
  EXPECT_EQ(to_absl(out), absl::Milliseconds(-1500));
}

TEST(Conversion, UsageAddsUp) {
  pb::Usage usage;
  set_usage({.prompt_tokens = 7, .completion_tokens = 5}, usage);
  EXPECT_EQ(usage.prompt_tokens(), 7u);
  EXPECT_EQ(usage.completion_tokens(), 5u);
  EXPECT_EQ(usage.total_tokens(), 12u);
}

}  // namespace
}  // namespace pkv
