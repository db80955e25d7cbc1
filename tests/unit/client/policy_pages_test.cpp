// What is printed of a server's policies and presets.
#include "client/policy_pages.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "client/policy_advice.h"
#include "client/policy_options.h"

namespace pkv::client {
namespace {

using testing::HasSubstr;
using testing::Not;

v1::ListCachePoliciesResponse list() {
  v1::ListCachePoliciesResponse result;
  auto& full = *result.add_policies();
  full.set_name("full");
  full.set_summary("keeps every entry");
  full.set_enabled(true);
  full.mutable_defaults()->mutable_full();
  auto& random = *result.add_policies();
  random.set_name("random");
  random.set_summary("entries drawn at random");
  random.set_source("nobody");
  random.mutable_defaults()->mutable_random()->set_seed(0);
  random.mutable_defaults()->mutable_random()->set_window_tokens(8);
  random.mutable_defaults()->mutable_budget()->set_keep_ratio(0.125);
  random.mutable_defaults()->set_kv_dtype(v1::KV_DTYPE_F16);
  for (const char* name : {"seed", "window_tokens"}) {
    auto& parameter = *random.add_parameters();
    parameter.set_name(name);
    parameter.set_range(">= 0");
    parameter.set_default_value(name == std::string("seed") ? "0" : "8");
    parameter.set_description(std::string("the ") + name);
  }
  result.mutable_default_policy()->mutable_full();
  auto& preset = *result.add_presets();
  preset.set_name("dice");
  *preset.mutable_policy() = random.defaults();
  preset.mutable_policy()->mutable_random()->set_seed(6);
  preset.mutable_policy()->mutable_budget()->set_bytes(4 << 20);
  return result;
}

TEST(PoliciesPage, PoliciesAndPresetsInOneTable) {
  const std::string text = policies_page(list(), 100);
  EXPECT_THAT(text, HasSubstr("full    keeps every entry\n"));
  EXPECT_THAT(text, HasSubstr("random  entries drawn at random (switched off)\n"));
  EXPECT_THAT(text, HasSubstr("name    policy  budget  covers  settings\n"
                              "full    full    -       -       -\n"
                              "random  random  12.5%   prompt  seed=0 window_tokens=8\n"
                              "dice    random  4MiB    total   seed=6\n"));
  EXPECT_THAT(text, HasSubstr("Requests that name no policy get full."));
  EXPECT_THAT(text, HasSubstr("Where the server has a lane table of its model: funnel"));
  EXPECT_THAT(text, HasSubstr("upper layers need more entries"));
}

TEST(PolicyPage, APolicyWithParametersAndACommand) {
  const std::string text = policy_page(list(), "random", 100);
  EXPECT_THAT(text, HasSubstr("random: entries drawn at random (switched off on this server)\nFrom nobody.\n"));
  EXPECT_THAT(text, HasSubstr(policy_advice("random")));
  EXPECT_THAT(text, HasSubstr("window_tokens  8        >= 0   the window_tokens\n"));
  EXPECT_THAT(text, HasSubstr("Where a request names no budget it has 12.5%.\n"));
  EXPECT_THAT(text, HasSubstr("\npyramidkv generate --prompt-file FILE --policy random --budget 128 --param seed=0\n"));
}

TEST(PolicyPage, FullHasNeitherBudgetNorParameters) {
  const std::string text = policy_page(list(), "full", 100);
  EXPECT_THAT(text, HasSubstr("It has no parameters.\n"));
  EXPECT_THAT(text, HasSubstr("--policy full\n"));
  EXPECT_THAT(text, Not(HasSubstr("--budget")));
}

TEST(PolicyPage, APresetWithItsValuesAndWhatItIsShortFor) {
  const std::string text = policy_page(list(), "dice", 100);
  EXPECT_THAT(text,
              HasSubstr("dice: a preset of this server\nrandom, budget 4MiB, entries f16, seed=6, window_tokens=8\n"));
  EXPECT_THAT(text, HasSubstr("seed           6      >= 0   the seed\n"));
  EXPECT_THAT(text, HasSubstr("generate --prompt-file FILE --policy dice\nis short for\n"));
  EXPECT_THAT(text, HasSubstr("--policy random --budget 4MiB --kv-dtype f16 --param seed=6"));
  EXPECT_EQ(policy_page(list(), "nobody", 100), "");
}

TEST(PolicyAdvice, ThereIsSomeForEveryPolicyOfTheContract) {
  for (const std::string& name : policy_names()) EXPECT_NE(policy_advice(name), "") << name;
  EXPECT_EQ(policy_advice("another"), "");
}

}  // namespace
}  // namespace pkv::client
