// skip_rows: spans and lanes of a step without its first rows.
#include "server/model/output_rows.h"

#include <gtest/gtest.h>

namespace pkv {
namespace {

// Two sequences of 4 and 3 rows with two lanes each.
StepPlan two_sequences() {
  StepPlan plan;
  plan.positions = {10, 11, 12, 13, 5, 6, 7};
  plan.spans = {{0, 4, 0}, {4, 3, 2}};
  const Lane first = {.first_page = 0, .length = 14, .write_slot = 10, .visible = 11};
  const Lane second = {.first_page = 9, .length = 8, .write_slot = 5, .visible = 6};
  plan.layer_lanes = {{first, first, second, second}};
  return plan;
}

TEST(OutputRowsTest, NothingSkippedIsTheWholeStep) {
  const StepPlan plan = two_sequences();
  const OutputRows rows = skip_rows(plan, plan.view(0), 0, 2);
  ASSERT_EQ(rows.spans.size(), 2u);
  EXPECT_EQ(rows.spans[1].first_row, 4);
  EXPECT_EQ(rows.lanes[0].visible, 11);
  EXPECT_EQ(rows.lanes[3].visible, 6);
}

TEST(OutputRowsTest, ACutInsideASequenceMovesItsLanesOn) {
  const StepPlan plan = two_sequences();
  const OutputRows rows = skip_rows(plan, plan.view(0), 3, 2);
  ASSERT_EQ(rows.spans.size(), 2u);
  EXPECT_EQ(rows.spans[0].first_row, 0);
  EXPECT_EQ(rows.spans[0].rows, 1);
  EXPECT_EQ(rows.spans[1].first_row, 1);
  EXPECT_EQ(rows.spans[1].rows, 3);
  EXPECT_EQ(rows.spans[1].first_lane, 2);
  EXPECT_EQ(rows.lanes[1].visible, 14);
  EXPECT_EQ(rows.lanes[1].write_slot, 13);
  EXPECT_EQ(rows.lanes[1].length, 14);
  EXPECT_EQ(rows.lanes[2].visible, 6);
}

TEST(OutputRowsTest, ASequenceThatIsCutOffHasNoSpan) {
  const StepPlan plan = two_sequences();
  const OutputRows rows = skip_rows(plan, plan.view(0), 5, 2);
  ASSERT_EQ(rows.spans.size(), 1u);
  EXPECT_EQ(rows.spans[0].first_row, 0);
  EXPECT_EQ(rows.spans[0].rows, 2);
  EXPECT_EQ(rows.spans[0].first_lane, 2);
  EXPECT_EQ(rows.lanes[2].visible, 7);
  EXPECT_TRUE(skip_rows(plan, plan.view(0), 7, 2).spans.empty());
}

}  // namespace
}  // namespace pkv
