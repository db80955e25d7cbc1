// How an engine ends that cannot go on: by an exception of a step, of a sink, of a lack of memory, or by hanging.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <limits>
#include <new>
#include <utility>

#include "absl/time/clock.h"
#include "kernels/reference/reference_backend.h"
#include "server/policy/registry.h"
#include "tests/support/forwarding_backend.h"
#include "tests/unit/engine/engine_fixture.h"

namespace pkv::test {
namespace {

using testing::HasSubstr;

class EngineFailure : public testing::Test {
 protected:
  TinyModel tiny_ = make_tiny_model();
};

TEST_F(EngineFailure, DrainGivesUpOnAnEngineThatHangs) {
  EngineOptions options = small_options();
  options.abort_time = absl::Milliseconds(10);
  const auto engine = make_engine(*tiny_.model, options);
  Gate gate;
  auto sink = std::make_shared<RecordingSink>();
  sink->at_start = [&] { gate.pass(); };
  submit(*engine, make_request(random_prompt(50, 1), 30), sink);
  gate.wait_for_guest();
  EXPECT_FALSE(engine->drain(absl::InfinitePast()));
  EXPECT_EQ(sink->ends, 0);
  gate.open();
  sink->wait();
  EXPECT_EQ(sink->status.code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(engine->drain(absl::InfinitePast()));
  EXPECT_EQ(engine->state(), Engine::State::kStopped);
}

// Has something happen before every operation, once that is asked for.
class TroubledBackend : public ForwardingBackend {
 public:
  explicit TroubledBackend(std::function<void()> trouble)
      : ForwardingBackend(make_reference_backend()), trouble_(std::move(trouble)) {}
  void begin() { troubled_ = true; }

 protected:
  void run(std::string_view, absl::FunctionRef<void()> forward) override {
    if (troubled_) trouble_();
    forward();
  }

 private:
  const std::function<void()> trouble_;
  std::atomic<bool> troubled_ = false;
};

TEST_F(EngineFailure, DrainKeepsItsDeadlineWhileAnOperationHangs) {
  Gate gate;
  auto backend = std::make_unique<TroubledBackend>([&] { gate.pass(); });
  TroubledBackend& troubled = *backend;
  const TinyModel model = make_tiny_model(std::move(backend));
  EngineOptions options = small_options();
  options.abort_time = absl::Milliseconds(10);
  const auto engine = make_engine(*model.model, options);
  troubled.begin();
  const auto running = submit(*engine, make_request(random_prompt(50, 1), 30));
  const auto other = submit(*engine, make_request(random_prompt(50, 2), 30));
  gate.wait_for_guest();
  EXPECT_FALSE(engine->drain(absl::Now() + absl::Milliseconds(10)));
  EXPECT_FALSE(engine->drain(absl::InfinitePast()));
  EXPECT_EQ(running->ends + other->ends, 0);
  // Nobody else has to wait for it.
  EXPECT_EQ(prepare_and_submit(*engine, make_request({5}, 1), std::make_shared<RecordingSink>()).code(),
            absl::StatusCode::kUnavailable);
  engine->cancel(running.get());
  (void)engine->stats();
  gate.open();
  running->wait();
  other->wait();
  EXPECT_TRUE(engine->drain(absl::InfinitePast()));
  EXPECT_EQ(engine->state(), Engine::State::kStopped);
}

TEST_F(EngineFailure, AnExceptionInAStepFailsTheEngineAndTellsEverySink) {
  auto backend = std::make_unique<TroubledBackend>([] { throw std::bad_alloc(); });
  TroubledBackend& troubled = *backend;
  const TinyModel model = make_tiny_model(std::move(backend));
  EngineOptions options = small_options();
  options.max_running = 2;
  const auto engine = make_engine(*model.model, options);
  auto first = std::make_shared<RecordingSink>();
  Gate start, gate;
  first->at_start = [&] { start.pass(); };
  first->at_token = [&](int32_t tokens) {
    if (tokens == 5) gate.pass();
    return true;
  };
  submit(*engine, make_request(random_prompt(50, 1), 30), first);
  start.wait_for_guest();
  const auto second = submit(*engine, make_request(random_prompt(300, 2), 300));
  const auto waiting = submit(*engine, make_request(random_prompt(50, 3), 30));
  start.open();
  gate.wait_for_guest();
  const auto unseen = submit(*engine, make_request(random_prompt(50, 4), 30));  // the loop has not taken it in yet
  troubled.begin();
  gate.open();
  for (const auto& sink : {first, second, waiting, unseen}) sink->wait();
  EXPECT_TRUE(engine->drain(absl::InfiniteFuture()));

  EXPECT_EQ(engine->state(), Engine::State::kFailed);
  EXPECT_EQ(engine->failure().code(), absl::StatusCode::kInternal);
  for (const auto& sink : {first, second}) {
    EXPECT_EQ(sink->status, engine->failure());
    EXPECT_THAT(std::string(sink->status.message()), HasSubstr("the engine failed: "));
    EXPECT_EQ(sink->ends, 1);
  }
  for (const auto& sink : {waiting, unseen}) {
    EXPECT_EQ(sink->status.code(), absl::StatusCode::kUnavailable);
    EXPECT_EQ(sink->starts, 0);
    EXPECT_EQ(sink->ends, 1);
  }
  const absl::Status refused = prepare_and_submit(*engine, make_request({5}, 1), std::make_shared<RecordingSink>());
  EXPECT_EQ(refused.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("failed"));
  EXPECT_EQ(engine->stalled_for(), absl::ZeroDuration());
  const auto stats = engine->stats();
  EXPECT_EQ(stats->running + stats->waiting, 0u);
  EXPECT_EQ(stats->live_bytes, 0u);
  EXPECT_EQ(stats->reserved_bytes, 0u);
  EXPECT_EQ(stats->cache.held, 0u);
}

// One token's embedding is no number, as of a file with a broken weight.
constexpr TokenId kBrokenToken = 7;
class BrokenWeight : public ForwardingBackend {
 public:
  BrokenWeight() : ForwardingBackend(make_reference_backend()) {}
  void embed(const Weight& table, const int32_t* ids, const TensorView& out) override {
    ForwardingBackend::embed(table, ids, out);
    for (int64_t row = 0; row < out.rows; ++row) {
      if (ids[row] == kBrokenToken) fill(out.slice_rows(row, 1), std::numeric_limits<float>::quiet_NaN());
    }
  }

 protected:
  void run(std::string_view, absl::FunctionRef<void()> forward) override { forward(); }
};

TEST_F(EngineFailure, OutputThatIsNoNumberEndsThatRequestAlone) {
  const TinyModel model = make_tiny_model(std::make_unique<BrokenWeight>());
  const auto engine = make_engine(*model.model);
  const std::vector<TokenId> well(40, 5);
  std::vector<TokenId> broken = well;
  broken[20] = kBrokenToken;
  const auto answered = run(*engine, make_request(well, 12));
  ASSERT_TRUE(answered->status.ok()) << answered->status;
  for (const PolicyKind kind : {PolicyKind::kFull, PolicyKind::kSnapKv, PolicyKind::kH2o, PolicyKind::kTova,
                                PolicyKind::kKeyDiff, PolicyKind::kAdaSnapKv}) {
    SCOPED_TRACE(policy_row(kind).name);
    for (const float temperature : {0.0f, 1.0f}) {
      const auto neighbour = submit(*engine, make_request(well, 12));
      const auto request = make_request(broken, 12, policy(kind, kind == PolicyKind::kFull ? 0 : 16));
      request->sampling.temperature = temperature;
      const auto sink = run(*engine, request);
      EXPECT_EQ(sink->status.code(), absl::StatusCode::kDataLoss) << sink->status;
      EXPECT_TRUE(sink->tokens.empty());
      neighbour->wait();
      EXPECT_EQ(neighbour->ids(), answered->ids());
    }
  }
  const auto scored = make_request(broken, 0);
  scored->prompt_logprobs = true;
  EXPECT_EQ(run(*engine, scored)->status.code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(engine->state(), Engine::State::kServing);
}

TEST_F(EngineFailure, WhoHadEndedBeforeTheEngineFailedKeepsTheAnswer) {
  EngineOptions options = small_options();
  options.at_step = [](const EngineStats& stats) {
    if (stats.policies.at("full").requests_total == 1) throw 1;  // after the step's ends, before they are told
  };
  const auto engine = make_engine(*tiny_.model, options);
  const auto longer = submit(*engine, make_request(random_prompt(50, 2), 300));
  const auto done = run(*engine, make_request(random_prompt(50, 1), 3));
  longer->wait();
  EXPECT_TRUE(done->status.ok()) << done->status;
  EXPECT_EQ(done->tokens.size(), 3u);
  EXPECT_EQ(longer->status.code(), absl::StatusCode::kInternal);
  EXPECT_EQ(engine->stats()->running, 0u);
}

TEST_F(EngineFailure, WithoutMemoryToTellACallerThatRequestAloneEnds) {
  const auto engine = make_engine(*tiny_.model);
  const auto no_memory = [] { throw std::bad_alloc(); };
  const auto request = make_request(random_prompt(50, 1), 5);
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  const auto neighbour = submit(*engine, make_request(random_prompt(50, 2), 300));
  for (int i = 0; i < 4; ++i) sinks.push_back(std::make_shared<RecordingSink>());
  sinks[0]->at_start = no_memory;
  sinks[1]->at_token = [&](int32_t) -> bool { throw std::bad_alloc(); };
  sinks[2]->at_token = [&](int32_t tokens) { return tokens < 3 ? true : throw std::bad_alloc(); };
  int tries = 0;  // the result, and then twice that there is no memory for it
  sinks[3]->at_end = [&] {
    if (++tries <= 3) no_memory();
  };
  for (const auto& sink : sinks) submit(*engine, request, sink);
  for (const auto& sink : sinks) {
    sink->wait();
    EXPECT_EQ(sink->status.code(), absl::StatusCode::kResourceExhausted);
    EXPECT_EQ(sink->ends, 1);
  }
  EXPECT_EQ(tries, 4);
  neighbour->wait();
  EXPECT_TRUE(neighbour->status.ok()) << neighbour->status;
  EXPECT_TRUE(run(*engine, request)->status.ok());
  EXPECT_TRUE(engine->drain(absl::InfiniteFuture()));
  EXPECT_EQ(engine->state(), Engine::State::kStopped);
  EXPECT_EQ(engine->stats()->live_bytes, 0u);
}

TEST_F(EngineFailure, WhoWasToldBeforeASinkThrewIsNotToldAgain) {
  const auto engine = make_engine(*tiny_.model);
  auto told = std::make_shared<RecordingSink>(), thrower = std::make_shared<RecordingSink>();
  Gate gate;
  told->at_start = [&] { gate.pass(); };
  told->at_token = [&](int32_t tokens) {
    for (const auto& sink : {told, thrower}) {
      if (tokens == 2) engine->cancel(sink.get());  // both end in one step
    }
    return true;
  };
  thrower->at_end = [] { throw 1; };
  submit(*engine, make_request(random_prompt(20, 1), 300), told);
  gate.wait_for_guest();
  submit(*engine, make_request(random_prompt(20, 2), 300), thrower);
  gate.open();
  told->wait();
  EXPECT_TRUE(engine->drain(absl::InfiniteFuture()));
  EXPECT_EQ(engine->state(), Engine::State::kFailed);
  EXPECT_EQ(told->ends, 1);
  told->at_token = nullptr;
}

TEST_F(EngineFailure, WhoCannotBeToldForWantOfMemoryIsToldLater) {
  const auto engine = make_engine(*tiny_.model);
  auto alone = std::make_shared<RecordingSink>();
  int tries = 0;
  alone->at_end = [&] {
    if (++tries <= 3) throw std::bad_alloc();
  };
  submit(*engine, make_request(random_prompt(50, 1), 3), alone);
  EXPECT_TRUE(engine->drain(absl::InfiniteFuture()));
  EXPECT_EQ(alone->ends, 1);
  EXPECT_EQ(alone->status.code(), absl::StatusCode::kResourceExhausted);
}

TEST_F(EngineFailure, WhenItHasFailedEverybodyIsToldOnceThereIsMemory) {
  auto backend = std::make_unique<TroubledBackend>([] { throw std::bad_alloc(); });
  TroubledBackend& troubled = *backend;
  const TinyModel model = make_tiny_model(std::move(backend));
  const auto engine = make_engine(*model.model);
  auto sink = std::make_shared<RecordingSink>();
  sink->at_start = [&] { troubled.begin(); };
  int tries = 0;
  sink->at_end = [&] {
    if (++tries <= 2) throw std::bad_alloc();
  };
  submit(*engine, make_request(random_prompt(50, 1), 3), sink);
  EXPECT_TRUE(engine->drain(absl::InfiniteFuture()));
  EXPECT_EQ(engine->state(), Engine::State::kFailed);
  EXPECT_EQ(sink->ends, 1);
  EXPECT_EQ(sink->status, engine->failure());
}

}  // namespace
}  // namespace pkv::test
