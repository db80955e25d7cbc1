// Policies as words of the command line, and that those words are read as the same policies again.
#include "client/policy_words.h"

#include <gmock/gmock.h>
#include <google/protobuf/util/message_differencer.h>
#include <gtest/gtest.h>

#include "client/policy_options.h"

namespace pkv::client {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

v1::CachePolicy policy_of(const PolicyOptions& options) {
  v1::CachePolicy policy;
  EXPECT_EQ(build_policy(options, policy), "");
  return policy;
}

TEST(PolicyFlags, SayEverythingThatIsSet) {
  EXPECT_THAT(policy_flags({}), IsEmpty());
  EXPECT_THAT(
      policy_flags(policy_of({.policy = "snapkv", .budget = "12.5%", .scope = "total", .params = {"pooling=avg"}})),
      ElementsAre("--policy", "snapkv", "--budget", "12.5%", "--scope", "total", "--param", "pooling=avg"));
  EXPECT_THAT(policy_flags(policy_of({.policy = "small"})), ElementsAre("--policy", "small"));
  EXPECT_THAT(policy_flags(policy_of({.preset = "tova"})), ElementsAre("--preset", "tova"));
}

TEST(PolicyFlags, AreReadAsTheSamePolicy) {
  const PolicyOptions kAll[] = {
      {.policy = "h2o",
       .budget = "4MiB",
       .kv_dtype = "f32",
       .prefill = "vertical_slash",
       .prefill_tokens = 300,
       .pins = {"0:4", "9:12"},
       .interval_tokens = 32,
       .pin_system = true},
      {.policy = "pyramidkv",
       .budget = "recall:0.95",
       .max_bytes = "64MiB",
       .params = {"beta=1.5", "allocation=factory"},
       .allow_shortfall = true},
      {.policy = "random", .budget = "7", .scope = "prompt", .params = {"seed=18446744073709551615"}}};
  for (const PolicyOptions& options : kAll) {
    const v1::CachePolicy policy = policy_of(options);
    PolicyOptions read;
    const std::vector<std::string> flags = policy_flags(policy);
    for (size_t i = 0; i < flags.size(); ++i) {
      const std::string& flag = flags[i];
      if (flag == "--allow-shortfall") read.allow_shortfall = true;
      if (flag == "--pin-system") read.pin_system = true;
      if (flag == "--policy") read.policy = flags[++i];
      if (flag == "--budget") read.budget = flags[++i];
      if (flag == "--scope") read.scope = flags[++i];
      if (flag == "--interval") read.interval_tokens = static_cast<uint32_t>(std::stoul(flags[++i]));
      if (flag == "--max-bytes") read.max_bytes = flags[++i];
      if (flag == "--kv-dtype") read.kv_dtype = flags[++i];
      if (flag == "--prefill") read.prefill = flags[++i];
      if (flag == "--prefill-tokens") read.prefill_tokens = static_cast<uint32_t>(std::stoul(flags[++i]));
      if (flag == "--param") read.params.push_back(flags[++i]);
      if (flag == "--pin") read.pins.push_back(flags[++i]);
    }
    EXPECT_TRUE(google::protobuf::util::MessageDifferencer::Equals(policy_of(read), policy)) << describe_policy(policy);
  }
}

TEST(ShellCommand, QuotesWhatAShellWouldTakeApart) {
  EXPECT_EQ(shell_command({"pyramidkv", "--budget", "12%", "/a/b-c.txt"}), "pyramidkv --budget 12% /a/b-c.txt");
  EXPECT_EQ(shell_word("What's this?"), "'What'\\''s this?'");
  EXPECT_EQ(shell_word(""), "''");
  EXPECT_EQ(shell_word("$(rm -rf x)\n`y`"), "'$(rm -rf x)\n`y`'");
}

}  // namespace
}  // namespace pkv::client
