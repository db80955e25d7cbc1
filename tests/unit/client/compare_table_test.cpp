// What people read of a comparison.
#include "client/compare_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace pkv::client {
namespace {

using testing::HasSubstr;

// A baseline, a policy that answers otherwise, and one that observes nothing and answers alike.
v1::CompareResponse reply() {
  v1::CompareResponse result;
  auto& baseline = *result.mutable_baseline();
  baseline.add_choices()->set_text("one\ntwo");
  baseline.mutable_cache()->set_policy_name("full");
  baseline.mutable_cache()->set_full_bytes(1000 << 10);
  baseline.mutable_cache()->set_held_bytes(1000 << 10);
  baseline.mutable_cache()->set_peak_bytes(2 << 20);
  auto& cut = *result.add_comparisons();
  cut.mutable_cache()->set_policy_name("snapkv");
  cut.mutable_cache()->set_budget_tokens(128);
  cut.mutable_cache()->set_full_bytes(1000 << 10);
  cut.mutable_cache()->set_held_bytes(125 << 10);
  cut.mutable_cache()->set_peak_bytes(300 << 10);
  cut.mutable_cache()->mutable_recall()->set_mean(0.93125);
  cut.mutable_cache()->mutable_recall()->set_min(0.5);
  for (double kl : {0.0, 0.25, 1.5, 0.125}) cut.add_kl(kl);
  cut.set_kl_mean(0.625);
  cut.set_top1_agreement(2.0 / 3);
  cut.set_first_divergence(2);
  cut.set_text("one three");
  auto& alike = *result.add_comparisons();
  alike.mutable_cache()->set_policy_name("random");
  alike.set_first_divergence(-1);
  alike.set_text("one\ntwo");
  return result;
}

TEST(CompareTable, OneRowAPolicyInAlignedColumns) {
  EXPECT_EQ(compare_table(reply(), {"full", "snapkv:128", "random"}),
            "policy      budget     kept       peak  recall mean  recall min  KL mean  KL max   top-1  differs at\n"
            "full             -  100.0 %   2.00 MiB            -           -        -       -       -           -\n"
            "snapkv:128     128   12.5 %  300.0 KiB       0.9313      0.5000   0.6250  1.5000  66.7 %     token 2\n"
            "random           -        -        0 B            -           -        -       -       -        same\n");
}

TEST(CompareTable, CallsPoliciesAsTheReplyDoesWithoutNames) {
  EXPECT_THAT(compare_table(reply(), {}), HasSubstr("\nsnapkv  "));
}

}  // namespace
}  // namespace pkv::client
