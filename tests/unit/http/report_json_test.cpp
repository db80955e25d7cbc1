#include "server/http/report_json.h"

#include <gtest/gtest.h>

#include "pyramidkv/v1/cache.pb.h"
#include "server/http/json_text.h"

namespace pkv {
namespace {

TEST(ReportJson, IsWhatProtobufWouldWrite) {
  CacheReport report{.budget_tokens = 10, .not_compressed_reason = "\"heads\":[] is no list of heads"};
  report.layers = {{.kept = {2, 1}, .kept_positions = {{1, 200}, {3}}, .final_positions = {{1, 4000}, {}}},
                   {.kept = {1, 1}},
                   {.kept = {1, 2}, .kept_positions = {{4}, {5, 6}}, .final_positions = {{7}}}};
  const PolicySpec spec{.kind = PolicyKind::kSnapKv, .budget = {.kind = BudgetKind::kTokens, .tokens = 10}};
  for (const ReportDetail detail : {ReportDetail::kSummary, ReportDetail::kPerLayer, ReportDetail::kPositions}) {
    pyramidkv::v1::CacheReport message;
    set_report(report, spec, detail, message);
    EXPECT_EQ(report_json(report, spec, detail), message_json(message));
  }
}

}  // namespace
}  // namespace pkv
