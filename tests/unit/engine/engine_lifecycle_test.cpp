// How requests begin and end: stops, cancellation, deadlines, the full queue, failing memory, drain.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <utility>

#include "kernels/reference/reference_backend.h"
#include "server/status/field_error.h"
#include "tests/unit/engine/engine_fixture.h"

namespace pkv::test {
namespace {

using testing::HasSubstr;

class EngineLifecycle : public testing::Test {
 protected:
  TinyModel tiny_ = make_tiny_model();
};

TEST_F(EngineLifecycle, EndsAtAnEndTokenUnlessIgnored) {
  const auto engine = make_engine(*tiny_.model);
  const auto free_running = run(*engine, make_request(random_prompt(30, 1), 12))->ids();
  const TokenId end = free_running[5];
  const auto first = std::find(free_running.begin(), free_running.end(), end) - free_running.begin();

  auto request = make_request(random_prompt(30, 1), 12);
  request->end_tokens = {end};
  const auto stopped = run(*engine, request);
  EXPECT_EQ(stopped->result->completion_tokens, first + 1);
  EXPECT_EQ(stopped->result->finish_reason, FinishReason::kStop);
  EXPECT_EQ(stopped->result->matched_stop_token, end);

  auto ignoring = std::make_shared<Request>(*request);
  ignoring->sampling.ignore_eos = true;
  const auto ignored = run(*engine, ignoring);
  EXPECT_EQ(ignored->ids(), free_running);
  EXPECT_EQ(ignored->result->finish_reason, FinishReason::kLength);
  EXPECT_FALSE(ignored->result->matched_stop_token.has_value());

  auto by_id = std::make_shared<Request>(*ignoring);
  by_id->sampling.stop_token_ids = {end};
  EXPECT_EQ(run(*engine, by_id)->result->completion_tokens, first + 1);

  auto at_least = std::make_shared<Request>(*request);
  at_least->sampling.min_tokens = 9;
  const auto long_enough = run(*engine, at_least);
  EXPECT_GE(long_enough->result->completion_tokens, 9);
  for (size_t i = 0; i + 1 < 9; ++i) EXPECT_NE(long_enough->ids()[i], end);
}

TEST_F(EngineLifecycle, EndsWhereTheSinkHasEnough) {
  const auto engine = make_engine(*tiny_.model);
  auto sink = std::make_shared<RecordingSink>();
  sink->at_token = [](int32_t count) { return count < 4; };
  submit(*engine, make_request(random_prompt(30, 1), 100), sink)->wait();
  EXPECT_EQ(sink->tokens.size(), 4u);
  EXPECT_EQ(sink->result->finish_reason, FinishReason::kStop);
  EXPECT_EQ(engine->stats()->policies.at("full").finished_total.at("stop"), 1u);
}

TEST_F(EngineLifecycle, CancelInTheMiddleFreesPagesAndLeavesTheOtherAlone) {
  const auto other_request = make_request(random_prompt(200, 2), 60, policy(PolicyKind::kPyramidKv, 24));
  const auto alone = run(*make_engine(*tiny_.model), other_request)->ids();

  const auto engine = make_engine(*tiny_.model);
  auto cancelled = std::make_shared<RecordingSink>(), other = std::make_shared<RecordingSink>();
  cancelled->at_token = [&](int32_t count) {
    if (count == 20) engine->cancel(cancelled.get());
    return true;
  };
  EngineStats after;
  cancelled->at_end = [&] { after = *engine->stats(); };
  submit(*engine, make_request(random_prompt(150, 3), 500), cancelled);
  submit(*engine, other_request, other);
  cancelled->wait();
  EXPECT_EQ(cancelled->status.code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(cancelled->tokens.size(), 20u);
  ASSERT_EQ(after.requests.size(), 1u);
  EXPECT_EQ(after.requests[0].held_bytes, after.cache.held);
  EXPECT_EQ(after.policies.at("full").held_bytes, 0u);
  other->wait();
  EXPECT_EQ(other->ids(), alone);
  EXPECT_EQ(engine->stats()->live_bytes, 0u);
  EXPECT_EQ(engine->stats()->policies.at("full").finished_total.at("CANCELLED"), 1u);
}

TEST_F(EngineLifecycle, CancelDuringPrefillAndWhileWaiting) {
  EngineOptions options = small_options();
  options.max_running = 1;
  const auto engine = make_engine(*tiny_.model, options);
  auto first = std::make_shared<RecordingSink>(), waiting = std::make_shared<RecordingSink>();
  Gate gate;
  first->at_start = [&] { gate.pass(); };
  submit(*engine, make_request(random_prompt(500, 3), 500), first);
  gate.wait_for_guest();
  submit(*engine, make_request(random_prompt(10, 3), 5), waiting);
  engine->cancel(first.get());
  engine->cancel(waiting.get());
  engine->cancel(nullptr);  // unknown: nothing happens
  gate.open();
  first->wait();
  waiting->wait();
  EXPECT_EQ(first->status.code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(waiting->status.code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(waiting->starts, 0);
  EXPECT_TRUE(first->tokens.empty());
  EXPECT_EQ(engine->stats()->live_bytes, 0u);
  EXPECT_EQ(engine->stats()->reserved_bytes, 0u);
}

// Rows of a prompt, cuts of several policies, a comparison's answers: cancelled after every step that it has, one after
// the other.
TEST_F(EngineLifecycle, WhateverItIsAtOneThatIsCancelledIsGoneAStepLater) {
  std::unique_ptr<Engine> engine;
  const TokenSink* victim = nullptr;  // until it is cancelled
  int32_t steps = 0, cancel_at = 0;
  EngineOptions options = watched_options();
  options.pool_bytes *= 4;
  options.step_rows = 1;
  EngineStats after;
  options.at_step = [&](const EngineStats& now) {
    if (victim == nullptr) return;
    after = now;
    if (++steps == cancel_at) engine->cancel(victim);
  };
  engine = make_engine(*tiny_.model, options);
  const uint64_t idle_workspace = engine->stats()->workspace_bytes;
  bool ended_by_itself = false;
  for (cancel_at = 1; !ended_by_itself; ++cancel_at) {
    const auto request = make_request(random_prompt(160, 3), 6, policy(PolicyKind::kSnapKv, 24));
    request->compare_with = {policy(PolicyKind::kH2o, 24)};
    const auto sink = std::make_shared<RecordingSink>();
    steps = 0;
    victim = sink.get();
    submit(*engine, request, sink)->wait();
    ended_by_itself = sink->status.ok();
    EXPECT_LE(steps, cancel_at + 1);
    EXPECT_EQ(after.live_bytes, 0u);
    EXPECT_EQ(after.reserved_bytes, 0u);
    EXPECT_EQ(after.workspace_bytes, idle_workspace);
    EXPECT_TRUE(after.requests.empty());
  }
  EXPECT_GT(cancel_at, 20);
}

TEST_F(EngineLifecycle, DeadlinesEndWaitingAndRunningRequests) {
  std::atomic<int64_t> seconds = 1000;
  EngineOptions options = small_options();
  options.clock = [&] { return absl::FromUnixSeconds(seconds); };
  const auto engine = make_engine(*tiny_.model, options);
  auto late = make_request(random_prompt(10, 1), 5);
  late->deadline = absl::FromUnixSeconds(999);
  EXPECT_EQ(run(*engine, late)->status.code(), absl::StatusCode::kDeadlineExceeded);

  auto request = make_request(random_prompt(10, 1), 100);
  request->deadline = absl::FromUnixSeconds(1010);
  auto sink = std::make_shared<RecordingSink>();
  sink->at_token = [&](int32_t count) {
    if (count == 3) seconds = 1010;
    return true;
  };
  submit(*engine, request, sink)->wait();
  EXPECT_EQ(sink->status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(sink->tokens.size(), 3u);
  EXPECT_EQ(engine->stats()->live_bytes, 0u);
}

TEST_F(EngineLifecycle, WhoCancelsAtTheDeadlineEndedForTheDeadline) {
  std::atomic<int64_t> seconds = 1000;
  EngineOptions options = small_options();
  options.clock = [&] { return absl::FromUnixSeconds(seconds); };
  const auto engine = make_engine(*tiny_.model, options);
  for (const int64_t now : {1009, 1010}) {
    auto request = make_request(random_prompt(10, 1), 100);
    request->deadline = absl::FromUnixSeconds(1010);
    auto sink = std::make_shared<RecordingSink>();
    sink->at_token = [&](int32_t) {
      seconds = now;
      engine->cancel(sink.get());
      return true;
    };
    submit(*engine, request, sink)->wait();
    EXPECT_EQ(sink->status.code(), now < 1010 ? absl::StatusCode::kCancelled : absl::StatusCode::kDeadlineExceeded);
  }
}

TEST_F(EngineLifecycle, TheQueueHasAnEnd) {
  EngineOptions options = small_options();
  options.max_running = 1;
  options.max_waiting = 2;
  const auto engine = make_engine(*tiny_.model, options);
  auto first = std::make_shared<RecordingSink>();
  Gate gate;
  first->at_token = [&](int32_t) {
    gate.pass();
    return true;
  };
  submit(*engine, make_request(random_prompt(10, 1), 1), first);
  gate.wait_for_guest();
  const auto request = make_request(random_prompt(10, 2), 2);
  const auto second = submit(*engine, request), third = submit(*engine, request);
  auto refused = std::make_shared<RecordingSink>();
  EXPECT_EQ(prepare_and_submit(*engine, request, refused).code(), absl::StatusCode::kResourceExhausted);
  gate.open();
  first->wait();
  second->wait();
  third->wait();
  EXPECT_EQ(second->ids(), third->ids());
  EXPECT_EQ(run(*engine, request)->ids(), third->ids());  // there is room again
  EXPECT_EQ(refused->starts + refused->ends, 0);
}

TEST_F(EngineLifecycle, RefusesWhatCanNeverBe) {
  EngineOptions options = small_options();
  options.pool_bytes = 256 * 512;
  options.workspace_bytes = 700 * 64 * sizeof(float);
  const auto engine = make_engine(*tiny_.model, options);
  auto sink = std::make_shared<RecordingSink>();
  const auto refusal = [&](std::shared_ptr<Request> request) { return prepare_and_submit(*engine, request, sink); };

  EXPECT_EQ(refusal(make_request({}, 5)).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(refusal(make_request({5000}, 5)).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(refusal(make_request({-1}, 5)).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(refusal(make_request({5}, 1024)).code(), absl::StatusCode::kInvalidArgument);
  auto biased = make_request({5}, 5);
  biased->sampling.logit_bias = {{400, 1.0f}};
  EXPECT_EQ(refusal(biased).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(refusal(make_request({5}, 5, policy(PolicyKind::kSnapKv))).message(), HasSubstr("cache_policy."));
  EXPECT_EQ(field_error_of(refusal(biased))->field, "sampling.logit_bias");
  const auto never = [&](std::shared_ptr<Request> request) {
    const absl::Status status = refusal(std::move(request));
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
    return refusal_of(status).value_or(Refusal{.reason = Refusal::Reason::kLength});
  };
  // 6 lanes of 48 pages.
  EXPECT_EQ(never(make_request(random_prompt(380, 1), 5)).reason, Refusal::Reason::kPool);
  const Refusal advised = never(make_request(random_prompt(380, 1), 5, policy(PolicyKind::kSnapKv, 370)));
  EXPECT_EQ(advised.reason, Refusal::Reason::kPool);
  EXPECT_GT(advised.largest_budget_tokens, 0u);
  EXPECT_EQ(never(make_request(random_prompt(701, 1), 5, policy(PolicyKind::kSnapKv, 9))).reason,
            Refusal::Reason::kWorkspace);
  EXPECT_EQ(refusal_of(refusal(make_request({5}, 1024)))->positions, 1025u);
  EXPECT_EQ(sink->starts + sink->ends, 0);
}

TEST_F(EngineLifecycle, WaitsForPagesAndEveryoneIsServed) {
  EngineOptions options = small_options();
  options.pool_bytes = 330 * 512;  // one of these at a time: 6 lanes of 44 pages, each
  const auto engine = make_engine(*tiny_.model, options);
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (uint32_t i = 0; i < 5; ++i) sinks.push_back(submit(*engine, make_request(random_prompt(340, i), 8)));
  for (const auto& sink : sinks) {
    sink->wait();
    EXPECT_EQ(sink->status, absl::OkStatus());
    EXPECT_EQ(sink->tokens.size(), 8u);
  }
}

// Has no memory for residual streams of one length.
class PoorBackend : public ReferenceBackend {
 public:
  static constexpr int64_t kUnlucky = 123;
  absl::StatusOr<Tensor> allocate(int64_t rows, int64_t cols, DType dtype) override {
    if (rows == kUnlucky) return absl::ResourceExhaustedError("no memory");
    return ReferenceBackend::allocate(rows, cols, dtype);
  }
};

TEST_F(EngineLifecycle, AFailedAllocationEndsThatRequestOnly) {
  const TinyModel poor = make_tiny_model(std::make_unique<PoorBackend>());
  const auto engine = make_engine(*poor.model);
  const auto before = submit(*engine, make_request(random_prompt(50, 1), 30));
  const auto unlucky = submit(*engine, make_request(random_prompt(PoorBackend::kUnlucky, 1), 30));
  const auto after = submit(*engine, make_request(random_prompt(50, 1), 30));
  before->wait();
  unlucky->wait();
  after->wait();
  EXPECT_EQ(unlucky->status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(before->tokens.size(), 30u);
  EXPECT_EQ(before->ids(), after->ids());
  EXPECT_EQ(engine->stats()->reserved_bytes, 0u);
}

TEST_F(EngineLifecycle, DrainFinishesWhatIsThereAndTakesNothingNew) {
  const auto engine = make_engine(*tiny_.model);
  auto sink = std::make_shared<RecordingSink>();
  Gate gate;
  sink->at_token = [&](int32_t) {
    gate.pass();
    return true;
  };
  submit(*engine, make_request(random_prompt(50, 1), 30), sink);
  gate.wait_for_guest();
  std::jthread drainer([&] { engine->drain(absl::InfiniteFuture()); });
  while (engine->state() == Engine::State::kServing) std::this_thread::yield();
  EXPECT_EQ(prepare_and_submit(*engine, make_request({5}, 1), std::make_shared<RecordingSink>()).code(),
            absl::StatusCode::kUnavailable);
  gate.open();
  drainer.join();
  EXPECT_EQ(engine->state(), Engine::State::kStopped);
  sink->wait();
  EXPECT_EQ(sink->tokens.size(), 30u);
  EXPECT_EQ(prepare_and_submit(*engine, make_request({5}, 1), std::make_shared<RecordingSink>()).code(),
            absl::StatusCode::kUnavailable);
}

TEST_F(EngineLifecycle, DrainAtItsDeadlineTellsEverySink) {
  EngineOptions options = small_options();
  options.max_running = 1;
  const auto engine = make_engine(*tiny_.model, options);
  const auto running = submit(*engine, make_request(random_prompt(500, 1), 500));
  const auto waiting = submit(*engine, make_request(random_prompt(500, 1), 500));
  engine->drain(absl::InfinitePast());
  EXPECT_EQ(running->ends, 1);
  EXPECT_EQ(running->status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(waiting->status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(engine->stats()->live_bytes, 0u);
}

TEST_F(EngineLifecycle, AStallShowsWhileThereIsWork) {
  const auto engine = make_engine(*tiny_.model);
  EXPECT_EQ(engine->stalled_for(), absl::ZeroDuration());
  Gate gate;
  auto sink = std::make_shared<RecordingSink>();
  sink->at_start = [&] { gate.pass(); };
  submit(*engine, make_request(random_prompt(50, 1), 30), sink);
  gate.wait_for_guest();
  const absl::Duration before = engine->stalled_for();
  EXPECT_GT(before, absl::ZeroDuration());
  while (engine->stalled_for() <= before) std::this_thread::yield();
  gate.open();
  sink->wait();
  while (engine->stalled_for() > absl::ZeroDuration()) std::this_thread::yield();
}

TEST_F(EngineLifecycle, TheDestructorTellsEverySinkOnce) {
  std::shared_ptr<RecordingSink> sink;
  {
    const auto engine = make_engine(*tiny_.model);
    sink = submit(*engine, make_request(random_prompt(500, 1), 500));
  }
  EXPECT_EQ(sink->ends, 1);
  EXPECT_EQ(sink->status.code(), absl::StatusCode::kUnavailable);
}

TEST_F(EngineLifecycle, ManyThreadsSubmitCancelAndLook) {
  EngineOptions options = small_options();
  options.pool_bytes = 400 * 512;
  const auto engine = make_engine(*tiny_.model, options);
  std::atomic<int32_t> answered = 0, cancelled = 0;
  {
    std::vector<std::jthread> clients;
    for (uint32_t client = 0; client < 4; ++client) {
      clients.emplace_back([&, client] {
        for (uint32_t i = 0; i < 10; ++i) {
          auto sink = submit(*engine, make_request(random_prompt(20 + 10 * static_cast<int32_t>(i), client), 6,
                                                   policy(PolicyKind::kSnapKv, 16)));
          if (i % 3 == client % 3) engine->cancel(sink.get());
          (void)engine->stats();
          (void)engine->estimate({.policy = policy(PolicyKind::kPyramidKv, 16), .prompt_tokens = 100, .max_tokens = 5});
          sink->wait();
          EXPECT_TRUE(sink->status.ok() || absl::IsCancelled(sink->status)) << sink->status;
          ++(sink->status.ok() ? answered : cancelled);
        }
      });
    }
  }
  EXPECT_EQ(answered + cancelled, 40);
  EXPECT_GE(answered, 20);
  const EngineStats stats = *engine->stats();
  EXPECT_EQ(stats.live_bytes, 0u);
  EXPECT_EQ(stats.policies.at("snapkv").requests_total, 40u);
}

}  // namespace
}  // namespace pkv::test
