// The measured rate of prompts: with clocks that a test moves.
#include "server/engine/prompt_rate.h"

#include <gtest/gtest.h>

#include <atomic>

#include "tests/unit/engine/engine_fixture.h"

namespace pkv::test {
namespace {

TEST(PromptRate, NothingIsKnownBeforeAWindowIsFull) {
  PromptRate rate;
  EXPECT_EQ(rate.least_time(1000), absl::ZeroDuration());
  rate.add(100, absl::Milliseconds(99));
  EXPECT_EQ(rate.least_time(1000), absl::ZeroDuration());
  rate.add(100, absl::Milliseconds(101));
  EXPECT_EQ(rate.best(), 1000);
  EXPECT_EQ(rate.least_time(5000), absl::Seconds(5));
}

TEST(PromptRate, TheBestOfTheLastCounts) {
  PromptRate rate;
  rate.add(4000, absl::Seconds(1));
  for (int i = 0; i < 63; ++i) rate.add(1000, absl::Seconds(1));
  EXPECT_EQ(rate.best(), 4000);
  rate.add(1000, absl::Seconds(1));
  EXPECT_EQ(rate.best(), 1000);
}

TEST(PromptRate, AnEngineMeasuresItsPrompts) {
  const TinyModel tiny = make_tiny_model();
  std::atomic<int64_t> milliseconds = 0, tick = 0;
  EngineOptions options = small_options();
  options.clock = [&] { return absl::UnixEpoch() + absl::Milliseconds(milliseconds += tick); };
  const auto engine = make_engine(*tiny.model, options);
  const auto request = make_request(random_prompt(200, 1), 1);
  const Contract contract = *engine->estimate(query_of(*request));
  EXPECT_EQ(run(*engine, request)->status, absl::OkStatus());
  EXPECT_EQ(engine->least_prompt_time(contract), absl::ZeroDuration());  // the clock stands still: no rate
  tick = 100;
  EXPECT_EQ(run(*engine, request)->status, absl::OkStatus());
  const absl::Duration least = engine->least_prompt_time(contract);
  EXPECT_GE(least, absl::Milliseconds(100));
  EXPECT_LE(least, absl::Milliseconds(milliseconds.load()));
  const Contract twice = *engine->estimate(query_of(*make_request(random_prompt(400, 1), 1)));
  EXPECT_GT(engine->least_prompt_time(twice), 2 * least);  // of attention there is more
}

}  // namespace
}  // namespace pkv::test
