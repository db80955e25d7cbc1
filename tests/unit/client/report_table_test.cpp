// What people read of a cache report.
#include "client/report_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace pkv::client {
namespace {

using testing::ContainsRegex;
using testing::HasSubstr;
using testing::Not;

TEST(HumanBytes, UnitsAndSigns) {
  EXPECT_EQ(human_bytes(512), "512 B");
  EXPECT_EQ(human_bytes(2048), "2.0 KiB");
  EXPECT_EQ(human_bytes(-3.5 * 1024 * 1024), "-3.50 MiB");
  EXPECT_EQ(human_bytes(1024.0 * 1024 * 1024), "1.00 GiB");
}

TEST(Saved, NothingIsSaidInWordsAndNeverBelowZero) {
  EXPECT_EQ(saved_size(2048, 4096), "2.0 KiB");
  EXPECT_EQ(saved_share(1, 8), "12.5 %");
  for (const double saved : {0.0, -2048.0}) {
    EXPECT_EQ(saved_size(saved, 8), "nothing");
    EXPECT_EQ(saved_share(saved, 8), "-");
  }
  EXPECT_EQ(saved_size(0, 0), "-");
}

ReportColumn column() {
  ReportColumn result{.title = "snapkv 64"};
  result.usage.set_prompt_tokens(1000);
  result.cache.set_full_bytes(1000 << 10);
  result.cache.set_saved_bytes(900 << 10);
  result.cache.set_compressed(true);
  return result;
}

TEST(ReportTable, OneColumnAReply) {
  const std::string table = report_table({column(), column()});
  EXPECT_THAT(table, HasSubstr("90.0 %"));
  EXPECT_THAT(table, HasSubstr("900.0 KiB"));
  EXPECT_THAT(table, HasSubstr("           snapkv 64            snapkv 64\n"));
}

TEST(ReportTable, TimesThatAReplyDoesNotHave) {
  ReportColumn timed = column();
  EXPECT_THAT(report_table({timed}), ContainsRegex("workspace .* -\ntime to first token +-\nprefill +-\ndecode +-\n"));
  timed.timings.mutable_time_to_first_token()->set_seconds(2);
  EXPECT_THAT(report_table({timed}), ContainsRegex("time to first token +2\\.00 s\n"));
}

TEST(ReportTable, SaysWhyNothingWasCompressed) {
  ReportColumn full = column();
  full.cache.set_compressed(false);
  full.cache.set_not_compressed_reason("policy full keeps everything");
  EXPECT_THAT(report_table({full}), HasSubstr("not compressed, policy full keeps everything"));
}

TEST(ReportTable, ScopeEvictedAndAuxiliary) {
  ReportColumn total = column();
  total.cache.mutable_effective_policy()->mutable_budget()->set_scope(v1::BUDGET_SCOPE_TOTAL);
  total.cache.set_evicted_entries(12345);
  total.cache.set_auxiliary_bytes(3 << 10);
  const std::string table = report_table({total});
  EXPECT_THAT(table, ContainsRegex("budget covers +prompt and answer\n"));
  EXPECT_THAT(table, ContainsRegex("entries evicted +12345\n"));
  EXPECT_THAT(table, ContainsRegex("auxiliary .* 3\\.0 KiB\n"));
  EXPECT_THAT(report_table({column()}), ContainsRegex("budget covers +-\n"));
}

TEST(ReportTable, WhatASparsePrefillComputedAndLost) {
  ReportColumn sparse = column();
  sparse.cache.mutable_prefill()->set_attended_share(0.25);
  sparse.cache.mutable_prefill()->set_lost_mean(0.0123);
  const std::string table = report_table({sparse});
  EXPECT_THAT(table, ContainsRegex("attention computed .* 25\\.0 %\n"));
  EXPECT_THAT(table, ContainsRegex("attention lost .* 1\\.2 %\n"));
  EXPECT_THAT(report_table({column()}), ContainsRegex("attention lost .* -\n"));
}

TEST(ReportTable, NothingSavedIsSaidInWords) {
  ReportColumn brief = column();
  brief.cache.set_full_bytes(23 << 10);
  brief.cache.set_allocated_bytes(360 << 10);
  brief.cache.set_saved_bytes(-(337 << 10));
  const std::string table = report_table({brief});
  EXPECT_THAT(table, ContainsRegex("saved +nothing\nsaved share +-\n"));
  EXPECT_THAT(table,
              HasSubstr("snapkv 64: nothing saved, the text is too short: every KV head holds whole pages, 360.0 "
                        "KiB together, and its entries would fill 23.0 KiB\n"));
  ReportColumn full = column();
  full.cache.set_compressed(false);
  full.cache.set_allocated_bytes(1010 << 10);
  full.cache.set_saved_bytes(-(10 << 10));
  EXPECT_THAT(report_table({full}), Not(HasSubstr("too short")));
}

TEST(EstimateText, FiguresAndOnRequestTheLayers) {
  v1::EstimateCacheResponse estimate;
  estimate.mutable_effective_policy()->mutable_pyramidkv()->set_beta(20);
  estimate.set_full_bytes(8 << 20);
  estimate.set_peak_bytes(2 << 20);
  estimate.set_steady_bytes(1 << 20);
  estimate.set_workspace_bytes(3 << 20);
  estimate.set_admissible_ever(true);
  estimate.set_smallest_budget_tokens(9);
  estimate.set_largest_budget_tokens(700);
  estimate.set_budget_tokens(150);
  for (uint32_t budget : {200, 100}) {
    auto& layer = *estimate.add_layers();
    layer.set_layer(estimate.layers_size() - 1);
    layer.set_budget_tokens(budget);
  }
  const std::string text = estimate_text(estimate, false);
  EXPECT_THAT(text, ContainsRegex("^pyramidkv, beta=20\n"));
  EXPECT_THAT(text, ContainsRegex("full cache would hold +8\\.00 MiB\n"));
  EXPECT_THAT(text, ContainsRegex("peak, prefill included +2\\.00 MiB\n"));
  EXPECT_THAT(text, ContainsRegex("steady, answer included +1\\.00 MiB\n"));
  EXPECT_THAT(text, ContainsRegex("workspace beside the cache +3\\.00 MiB\n"));
  EXPECT_THAT(text, ContainsRegex("smallest budget in entries +9\n"));
  EXPECT_THAT(text, ContainsRegex("largest budget in entries +700\n"));
  EXPECT_THAT(text, ContainsRegex("budget, entries per head +150\n"));
  EXPECT_THAT(text, ContainsRegex("admissible now +no\nadmissible ever +yes\n$"));
  EXPECT_THAT(text, Not(HasSubstr("smallest budget in bytes")));
  estimate.set_smallest_budget_bytes((1211 << 10) - 5);  // rounded up, so that it can be asked for
  EXPECT_THAT(estimate_text(estimate, false), ContainsRegex("smallest budget in bytes +1211KiB\n"));
  estimate.clear_smallest_budget_bytes();
  EXPECT_EQ(estimate_text(estimate, true), text + "layer   0  " + std::string(50, '#') +
                                               "    200 entries\nlayer   1  " + std::string(25, '#') +
                                               std::string(25, ' ') + "    100 entries\n");
}

TEST(LayerBars, LongestForTheLayerThatKeepsMost) {
  v1::CacheReport report;
  for (double kept : {100.0, 50.0}) {
    auto& layer = *report.add_layers();
    layer.set_layer(report.layers_size() - 1);
    layer.set_kept_mean(kept);
  }
  EXPECT_EQ(layer_bars(report), "layer   0  " + std::string(50, '#') + "    100 kept\nlayer   1  " +
                                    std::string(25, '#') + std::string(25, ' ') + "     50 kept\n");
  EXPECT_EQ(layer_bars({}), "");
}

}  // namespace
}  // namespace pkv::client
