// What the log says of an engine that does not move: once, with what it was at, and no text.
#include "server/stall_watch.h"

#include <gmock/gmock.h>

#include <iterator>
#include <list>
#include <optional>
#include <utility>

#include "absl/time/clock.h"
#include "tests/unit/api/api_fixture.h"

namespace pkv {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class StalledEngine : public StillEngine {
 public:
  absl::Duration stalled_for() const override { return stalled; }
  std::shared_ptr<const EngineStats> stats() const override { return std::make_shared<EngineStats>(last); }
  absl::Duration stalled;
  EngineStats last;
};

class StallWatchTest : public ::testing::Test {
 protected:
  std::string look(absl::Duration stalled) {
    engine_.stalled = stalled;
    ::testing::internal::CaptureStderr();
    watch_.look(engine_, calls_);
    return ::testing::internal::GetCapturedStderr();
  }

  const Log log_{"info", "text"};
  StalledEngine engine_;
  CallRegistry calls_;
  StallWatch watch_{absl::Seconds(60), log_};
};

TEST_F(StallWatchTest, TellsOnceWhatRuns) {
  engine_.last = {.running = 1, .waiting = 1, .steps_total = 77, .live_bytes = 4096};
  engine_.last.requests = {{.id = "one", .phase = "prefill", .policy = "snapkv", .prompt_tokens = 9, .held_bytes = 512},
                           {.id = "two", .phase = "waiting"}};
  EXPECT_EQ(look(absl::Seconds(60)), "");
  EXPECT_THAT(look(absl::Seconds(61)),
              AllOf(HasSubstr("does not move stalled_seconds=61"), HasSubstr("steps=77"), HasSubstr("live_bytes=4096"),
                    HasSubstr("request_id=one phase=prefill policy=snapkv"), HasSubstr("held_bytes=512"),
                    HasSubstr("request_id=two phase=waiting")));
  EXPECT_EQ(look(absl::Seconds(62)), "");
  EXPECT_THAT(look(absl::ZeroDuration()), HasSubstr("the engine moves again"));
  EXPECT_EQ(look(absl::ZeroDuration()), "");
  EXPECT_THAT(look(absl::Seconds(99)), HasSubstr("stalled_seconds=99"));
}

TEST_F(StallWatchTest, TellsWhichCallsAreBesideTheEngine) {
  const CallRegistry::Entry other(calls_, {.method = "Tokenize", .bytes = 5});
  std::optional<CallRegistry::Entry> entry(std::in_place, calls_,
                                           CallRegistry::Row{.method = "Generate", .peer = "ipv4:1", .bytes = 77});
  EXPECT_THAT(look(absl::Hours(1)), AllOf(HasSubstr("method=Tokenize"), HasSubstr("phase=queued bytes=5"),
                                          HasSubstr("method=Generate"), HasSubstr("phase=queued bytes=77")));
  look(absl::ZeroDuration());
  entry->enter(CallPhase::kPreparing);
  entry->set_request_id("three");
  EXPECT_THAT(look(absl::Hours(1)), HasSubstr("request_id=three peer=ipv4:1 phase=preparing bytes=77"));
  look(absl::ZeroDuration());
  entry->enter(CallPhase::kEngine);
  EXPECT_THAT(look(absl::Hours(1)), HasSubstr("request_id=three peer=ipv4:1 phase=engine"));  // it has not told of it
  look(absl::ZeroDuration());
  engine_.last.time = absl::Now() + absl::Seconds(1);
  engine_.last.requests = {{.id = "three"}};
  EXPECT_THAT(look(absl::Hours(1)), Not(HasSubstr("Generate")));
  look(absl::ZeroDuration());
  entry->enter(CallPhase::kDelivering);
  EXPECT_THAT(look(absl::Hours(1)), HasSubstr("request_id=three peer=ipv4:1 phase=delivering"));
  look(absl::ZeroDuration());
  entry.reset();
  EXPECT_THAT(look(absl::Hours(1)), AllOf(HasSubstr("Tokenize"), Not(HasSubstr("Generate"))));
}

// Of four calls of one id the engine told of two: those that came to it first, not to the server.
TEST_F(StallWatchTest, CallsMayShareAnId) {
  std::list<CallRegistry::Entry> entries;
  for (uint64_t bytes = 1; bytes <= 4; ++bytes) {
    entries.emplace_back(calls_, CallRegistry::Row{.method = "Generate", .request_id = "mine", .bytes = bytes});
  }
  for (CallRegistry::Entry* entry : {&entries.back(), &*std::next(entries.begin()), &entries.front()}) {
    entry->enter(CallPhase::kEngine);
    absl::SleepFor(absl::Milliseconds(1));  // no two at the same time
  }
  engine_.last.time = absl::Now();
  engine_.last.requests = {{.id = "mine"}, {.id = "mine"}};
  EXPECT_THAT(look(absl::Hours(1)), AllOf(HasSubstr("phase=queued bytes=3"), HasSubstr("phase=engine bytes=1"),
                                          Not(HasSubstr("bytes=2")), Not(HasSubstr("bytes=4"))));
}

// Not even where the one of its id that the engine told of has gone.
TEST_F(StallWatchTest, ACallThatCameSinceIsNotTakenForAnotherOfItsId) {
  engine_.last.time = absl::Now() - absl::Seconds(1);
  engine_.last.requests = {{.id = "mine"}};
  CallRegistry::Entry entry(calls_, {.method = "Generate", .request_id = "mine", .bytes = 5});
  entry.enter(CallPhase::kEngine);
  EXPECT_THAT(look(absl::Hours(1)), HasSubstr("phase=engine bytes=5"));
}

TEST_F(StallWatchTest, TheRowsAreBounded) {
  engine_.last.requests.resize(10'000);
  const std::string text = look(absl::Hours(1));
  EXPECT_LT(std::ranges::count(text, '\n'), 300);
}

}  // namespace
}  // namespace pkv
