// Estimates in a table, and which of them is recommended.
#include "client/estimate_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace pkv::client {
namespace {

using testing::HasSubstr;

EstimateRow row(const std::string& name, uint32_t entries, uint64_t peak, bool now, bool ever) {
  EstimateRow result{.name = name};
  result.policy.mutable_snapkv();
  result.estimate.mutable_effective_policy()->mutable_snapkv();
  result.estimate.set_budget_tokens(entries);
  result.estimate.set_full_bytes(8 << 20);
  result.estimate.set_peak_bytes(peak);
  result.estimate.set_steady_bytes(peak / 2);
  result.estimate.set_admissible_now(now);
  result.estimate.set_admissible_ever(ever);
  result.estimate.set_smallest_budget_bytes((1211 << 10) - 5);
  result.estimate.set_smallest_budget_tokens(9);
  result.estimate.set_largest_budget_tokens(700);
  return result;
}

EstimateRow full(bool now) {
  EstimateRow result = row("full", 1000, 9 << 20, now, true);
  result.estimate.mutable_effective_policy()->mutable_full();
  result.estimate.set_steady_bytes(9 << 20);
  result.estimate.set_smallest_budget_bytes(0);
  result.estimate.set_smallest_budget_tokens(0);
  return result;
}

TEST(EstimateTable, OneRowAPolicyInWordsOfPeople) {
  EXPECT_EQ(estimate_table({full(true), row("snapkv:128", 128, 2 << 20, false, true),
                            row("snapkv:64", 64, 1 << 20, false, false)}),
            "policy      entries      peak     steady  full cache   saved  fits   smallest budget\n"
            "full           1000  9.00 MiB   9.00 MiB    8.00 MiB       -  now                  -\n"
            "snapkv:128      128  2.00 MiB   1.00 MiB    8.00 MiB  87.5 %  later     9 or 1211KiB\n"
            "snapkv:64        64  1.00 MiB  512.0 KiB    8.00 MiB  93.8 %  never     9 or 1211KiB\n");
}

TEST(BestFitting, KeepsMostOfWhatFitsAndNowGoesBeforeLater) {
  EXPECT_EQ(best_fitting({row("a", 64, 100, true, true), full(true), row("c", 2000, 300, true, true)}), 1u);
  EXPECT_EQ(best_fitting({full(false), row("b", 64, 100, true, true), row("c", 128, 200, true, true)}), 2u);
  EXPECT_EQ(best_fitting({row("a", 64, 200, true, true), row("b", 64, 100, true, true)}), 1u);
  EXPECT_EQ(best_fitting({row("a", 64, 200, false, false), row("b", 32, 100, false, true)}), 1u);
  EXPECT_EQ(best_fitting({row("a", 64, 200, false, false)}), std::nullopt);
  EXPECT_EQ(best_fitting({}), std::nullopt);
}

TEST(EstimateVerdict, SaysWhyThisOneOrWhatWouldFit) {
  std::vector<EstimateRow> rows{row("a", 64, 100, true, true), row("b", 32, 100, false, true)};
  EXPECT_EQ(estimate_verdict(rows, 0), "a keeps most of what fits. It would start now:");
  EXPECT_THAT(estimate_verdict(rows, 1), HasSubstr("would wait until other requests give memory back:"));
  EXPECT_EQ(estimate_verdict({rows[0]}, 0), "It would start now:");
  rows = {row("a", 64, 100, false, false), row("b", 32, 100, false, false)};
  EXPECT_EQ(
      estimate_verdict(rows, std::nullopt),
      "None of them ever fits. The smallest cache for this prompt is 1211KiB, of snapkv: --budget 9 to 700 would fit.");
  rows[0].estimate.set_largest_budget_tokens(0);
  EXPECT_THAT(estimate_verdict({rows[0]}, std::nullopt), HasSubstr("It never fits."));
  EXPECT_THAT(estimate_verdict({rows[0]}, std::nullopt), HasSubstr("cache.pool_bytes has to be larger"));
  rows[0].smallest_bytes_fit = true;  // which covers prompt and answer, unlike the same in entries
  EXPECT_THAT(estimate_verdict({rows[0]}, std::nullopt), HasSubstr("of snapkv: --budget 1211KiB would fit."));
  rows[1].smallest_bytes_fit = true;
  EXPECT_THAT(estimate_verdict({rows[1]}, std::nullopt), HasSubstr("--budget 9 to 700 would fit."));
  rows[1].policy.mutable_budget()->set_bytes(4096);
  EXPECT_THAT(estimate_verdict({rows[1]}, std::nullopt), HasSubstr("--budget 1211KiB would fit."));
  EXPECT_THAT(estimate_verdict({full(false)}, std::nullopt), HasSubstr("Try a policy with a budget"));
}

}  // namespace
}  // namespace pkv::client
