// A call from the gate to its end.
#include "server/api/generation_call.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <atomic>
#include <future>
#include <mutex>
#include <numeric>
#include <vector>

#include "absl/time/clock.h"
#include "server/policy/recall_shortfall.h"
#include "tests/unit/api/call_fixture.h"

namespace pkv {
namespace {

class GenerationCallTest : public CallTest {
 protected:
  GenerationCallTest() {
    limits({.preparation_threads = 1, .max_waiting = 2, .max_waiting_bytes = 1000, .max_unread_bytes = 1000});
  }
  absl::Status error_after(const absl::Status& status) {
    const std::shared_ptr<WatchedCall> call = start();
    holding_.wait_for_sink(0)->on_error(status);
    return call->wait_for_error();
  }
  uint64_t rejections(const std::string& reason) const { return state_->metrics().snapshot().rejected.at(reason); }
};

TEST_F(GenerationCallTest, AShortfallOfRecallNamesItsFigures) {
  const DecodedError error =
      decode_error(error_after(recall_not_reached({.reached = 0.25, .layer = 3}, /*min_recall_millionths=*/900'000)));
  EXPECT_EQ(error.code, absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(error.reason, "RECALL_NOT_REACHED");
  EXPECT_EQ(error.field, "cache_policy.budget.min_recall");
  EXPECT_EQ(std::stod(error.metadata.at("reached")), 0.25);
  EXPECT_EQ(error.metadata.at("layer"), "3");
  EXPECT_EQ(rejections("RECALL_NOT_REACHED"), 1u);
}

TEST_F(GenerationCallTest, OutputThatIsNoNumberIsAnInternalErrorWithItsReason) {
  const DecodedError error = decode_error(error_after(absl::DataLossError("the model's output is not a number")));
  EXPECT_EQ(error.code, absl::StatusCode::kInternal);
  EXPECT_EQ(error.reason, "NOT_A_NUMBER");
  EXPECT_EQ(rejections("NOT_A_NUMBER"), 1u);
}

TEST_F(GenerationCallTest, WantOfMemoryOfTheEngineHasItsReason) {
  const DecodedError error = decode_error(error_after(absl::ResourceExhaustedError("no memory for a tensor")));
  EXPECT_EQ(error.code, absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(error.reason, "OUT_OF_MEMORY");
  EXPECT_EQ(error.message, "no memory for a tensor");
  EXPECT_GT(error.retry_seconds, 0);
  EXPECT_EQ(rejections("OUT_OF_MEMORY"), 1u);
}

TEST_F(GenerationCallTest, OtherErrorsStayAsTheyAre) {
  EXPECT_EQ(error_after(absl::CancelledError("gone")), absl::CancelledError("gone"));
  EXPECT_EQ(rejections("RECALL_NOT_REACHED"), 0u);
}

TEST_F(GenerationCallTest, AFullQueueIsToldBeforeAnythingIsRead) {
  const auto first = start(), second = start();
  holding_.wait_for_sink(1);
  const DecodedError error = decode_error(start()->wait_for_error());
  EXPECT_EQ(error.code, absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(error.reason, "QUEUE_FULL");
  EXPECT_GT(error.retry_seconds, 0);
  EXPECT_THAT(error.message, ::testing::HasSubstr("scheduler.max_waiting"));
  EXPECT_EQ(reads_, 2);
  EXPECT_EQ(rejections("QUEUE_FULL"), 1u);
  // One that runs waits no more, and one that has ended neither.
  holding_.wait_for_sink(0)->on_start();
  const auto third = start();
  holding_.wait_for_sink(2);
  holding_.wait_for_sink(1)->on_error(absl::CancelledError("gone"));
  EXPECT_FALSE(second->wait_for_error().ok());
  const auto fourth = start();
  holding_.wait_for_sink(3);
  for (const auto& sink : std::vector(holding_.sinks)) sink->on_error(absl::CancelledError("the end"));
}

// As a library did that was given a number beyond double.
TEST_F(GenerationCallTest, AnExceptionWhileItIsReadEndsThatCallAlone) {
  const std::shared_ptr<WatchedCall> call = make_call();
  call->start(1, [](CallInfo&, const std::stop_token&) -> absl::StatusOr<AcceptedRequest> {
    throw std::out_of_range("1e999");
  });
  const DecodedError error = decode_error(call->wait_for_error());
  EXPECT_EQ(error.code, absl::StatusCode::kInternal);
  EXPECT_THAT(error.message, ::testing::HasSubstr("1e999"));
  const std::shared_ptr<WatchedCall> next = start();
  holding_.wait_for_sink(0)->on_error(absl::CancelledError("the end"));
  EXPECT_TRUE(absl::IsCancelled(next->wait_for_error()));
}

TEST_F(GenerationCallTest, TheQueueIsBoundedInBytes) {
  const auto first = start(600);
  EXPECT_EQ(decode_error(start(600)->wait_for_error()).reason, "QUEUE_FULL");
  holding_.wait_for_sink(0)->on_error(absl::CancelledError("gone"));
  EXPECT_FALSE(first->wait_for_error().ok());
  const auto large = start(5000);  // alone, however large
  holding_.wait_for_sink(1)->on_error(absl::CancelledError("gone"));
}

TEST_F(GenerationCallTest, TheQueueIsBoundedInTokens) {
  limits({.preparation_threads = 1, .max_waiting = 9, .max_waiting_tokens = 10});
  prompt_tokens_ = 6;
  const auto first = start();
  const std::shared_ptr<TokenSink> waiting = holding_.wait_for_sink(0);
  const DecodedError error = decode_error(start()->wait_for_error());
  EXPECT_EQ(error.code, absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(error.reason, "QUEUE_FULL");
  EXPECT_GT(error.retry_seconds, 0);
  EXPECT_THAT(error.message, ::testing::HasSubstr("scheduler.max_waiting_tokens"));
  EXPECT_EQ(error.metadata, (std::map<std::string, std::string>{{"max", "10"}, {"got", "6"}}));
  EXPECT_EQ(rejections("QUEUE_FULL"), 1u);
  waiting->on_start();  // waits no more
  prompt_tokens_ = 50;
  const auto large = start();  // alone, however large
  holding_.wait_for_sink(1);
  prompt_tokens_ = 1;
  EXPECT_EQ(decode_error(start()->wait_for_error()).reason, "QUEUE_FULL");
  for (const auto& sink : std::vector(holding_.sinks)) sink->on_error(absl::CancelledError("the end"));
  EXPECT_FALSE(large->wait_for_error().ok());
  const auto last = start();
  holding_.wait_for_sink(2)->on_error(absl::CancelledError("the end"));
}

TEST_F(GenerationCallTest, DrainingAndFailureAreToldBeforeAnythingIsRead) {
  holding_.state_now = Engine::State::kDraining;
  const DecodedError draining = decode_error(start()->wait_for_error());
  EXPECT_EQ(draining.code, absl::StatusCode::kUnavailable);
  EXPECT_EQ(draining.reason, "DRAINING");
  EXPECT_GT(draining.retry_seconds, 0);
  holding_.state_now = Engine::State::kFailed;
  EXPECT_EQ(decode_error(start()->wait_for_error()).reason, "ENGINE_FAILED");
  EXPECT_EQ(reads_, 0);
}

TEST_F(GenerationCallTest, OneThatIsCancelledWhileItWaitsIsNotRead) {
  std::mutex held;
  held.lock();
  const auto first = make_call();
  first->start(1, [&](CallInfo&, const std::stop_token&) -> absl::StatusOr<AcceptedRequest> {
    const std::lock_guard wait(held);
    return read();
  });
  const auto second = start();
  second->cancel();
  held.unlock();
  EXPECT_TRUE(absl::IsCancelled(second->wait_for_error()));
  EXPECT_EQ(reads_, 1);
  first->cancel();
  holding_.wait_for_sink(0)->on_error(absl::CancelledError("gone"));
}

TEST_F(GenerationCallTest, IsListedFromItsAdmissionToItsEnd) {
  std::mutex held;
  held.lock();
  std::atomic<bool> reading = false;
  const auto first = make_call();
  first->start(11, [&](CallInfo& info, const std::stop_token&) -> absl::StatusOr<AcceptedRequest> {
    info.listed->set_request_id("first");
    reading = true;
    const std::lock_guard wait(held);
    return read();
  });
  const auto second = start(22);
  while (!reading) absl::SleepFor(absl::Milliseconds(1));
  const std::vector<CallRegistry::Row> rows = state_->calls().rows();
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0].request_id, "first");
  EXPECT_EQ(rows[0].phase, CallPhase::kPreparing);
  EXPECT_EQ(rows[0].bytes, 11u);
  EXPECT_EQ(rows[1].phase, CallPhase::kQueued);
  EXPECT_EQ(rows[1].bytes, 22u);
  held.unlock();
  holding_.wait_for_sink(1);
  state_->preparation().stop();
  EXPECT_EQ(state_->calls().count(CallPhase::kEngine), 2u);
  for (const auto& sink : std::vector(holding_.sinks)) sink->on_error(absl::CancelledError("the end"));
  EXPECT_EQ(state_->calls().count(CallPhase::kEngine), 0u);
  EXPECT_EQ(state_->calls().count(CallPhase::kDelivering), 2u);
}

TEST_F(GenerationCallTest, OneThatIsCancelledWhileItIsReadEnds) {
  const auto call = make_call();
  call->start(1, [&](CallInfo&, const std::stop_token& stop) {
    EXPECT_FALSE(stop.stop_requested());
    call->cancel();
    EXPECT_TRUE(stop.stop_requested());
    return read();
  });
  EXPECT_TRUE(absl::IsCancelled(call->wait_for_error()));
  EXPECT_TRUE(holding_.sinks.empty());
}

TEST_F(GenerationCallTest, OneThatIsCancelledBehindItsDeadlineEndsForTheDeadline) {
  const auto call = make_call(/*whole=*/true, {.deadline = absl::Now()});
  call->start(1, [&](CallInfo&, const std::stop_token&) {
    call->cancel();
    return read();
  });
  EXPECT_TRUE(absl::IsDeadlineExceeded(call->wait_for_error()));
}

TEST_F(GenerationCallTest, WhoReadsTooSlowlyIsCutOffAlone) {
  const auto slow = start(1, /*whole=*/false);
  const std::shared_ptr<TokenSink> sink = holding_.wait_for_sink(0);
  sink->on_start();  // which is never taken
  const TokenId letter = *tokenizer_->find_token("a");
  for (int i = 0; i < 100; ++i) sink->on_token({.id = letter});
  EXPECT_TRUE(holding_.cancelled.empty());
  for (int i = 0; i < 1000; ++i) sink->on_token({.id = letter});
  EXPECT_THAT(holding_.cancelled, ::testing::ElementsAre(sink.get()));
  sink->on_error(absl::CancelledError("by the engine"));
  slow->read_on();
  const DecodedError error = decode_error(slow->wait_for_error());
  EXPECT_EQ(error.code, absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(error.reason, "SLOW_READER");
  EXPECT_EQ(error.metadata.at("max"), "1000");
}

TEST_F(GenerationCallTest, AMessageThatIsNotTakenInTimeNamesTheTime) {
  limits({.max_unread_seconds = 2.5});
  const auto slow = start(1, /*whole=*/false);
  const std::shared_ptr<TokenSink> sink = holding_.wait_for_sink(0);
  sink->on_start();
  slow->is_late();
  slow->cancel();
  sink->on_error(absl::CancelledError("by the engine"));
  slow->read_on();
  const DecodedError error = decode_error(slow->wait_for_error());
  EXPECT_EQ(error.reason, "SLOW_READER");
  EXPECT_EQ(error.metadata.at("max_seconds"), "2.5");
  EXPECT_THAT(error.message, ::testing::HasSubstr("2.5 s (server.max_unread_seconds)"));
}

TEST_F(GenerationCallTest, WithoutMemoryForAMessageTheCallAloneEnds) {
  for (const bool whole : {false, true}) {
    const auto call = start(1, whole);
    call->no_memory = true;
    call->errors_without_memory = 2;
    call->read_on();
    const std::shared_ptr<TokenSink> sink = holding_.wait_for_sink(whole ? 1 : 0);
    sink->on_start();
    sink->on_token({.id = *tokenizer_->find_token("a")});
    whole ? sink->on_end({.finish_reason = FinishReason::kLength}) : sink->on_error(call->wait_for_error());
    EXPECT_EQ(call->wait_for_error().code(), absl::StatusCode::kResourceExhausted);
  }
  EXPECT_EQ(holding_.cancelled.size(), 1u);  // the other had ended
  state_->delivery().stop();
  const auto ends = state_->metrics().snapshot().requests;
  EXPECT_EQ(ends.at({"full", "RESOURCE_EXHAUSTED"}), 2u);
  EXPECT_EQ(ends.at({"full", "OK"}), 0u);
  EXPECT_EQ(rejections("OUT_OF_MEMORY"), 2u);
}

TEST_F(GenerationCallTest, WhatTakesLongToMakeHoldsNobodyElseUp) {
  for (const bool whole : {true, false}) {
    const size_t sinks = holding_.sinks.size();
    std::mutex held, delivery;
    held.lock();
    std::atomic<bool> begun = false;
    RequestResult result{.finish_reason = FinishReason::kLength};
    result.cache.layers.push_back({.kept = {5000}, .kept_positions = {std::vector<int32_t>(5000)}});
    std::vector<int32_t>& lane = result.cache.layers[0].kept_positions[0];
    std::iota(lane.rbegin(), lane.rend(), 0);  // as slots may have them

    const std::shared_ptr<WatchedCall> large = make_call(whole);
    large->at_end = [&](const RequestResult& made) {
      EXPECT_TRUE(std::ranges::is_sorted(made.cache.layers[0].kept_positions[0]));
      begun = true;
      const std::lock_guard wait(held);
    };
    large->start(1, [this](CallInfo&, const std::stop_token&) { return read(); });
    large->read_on();
    const std::shared_ptr<TokenSink> sink = holding_.wait_for_sink(sinks);
    // Its end comes when the delivery thread has been asked for something small already.
    delivery.lock();
    state_->delivery().post([&] { const std::lock_guard wait(delivery); });
    sink->on_start();
    sink->on_end(std::move(result));
    delivery.unlock();
    while (!begun) absl::SleepFor(absl::Milliseconds(1));

    for (const bool other_whole : {true, false}) {
      const size_t before = holding_.sinks.size();
      const std::shared_ptr<WatchedCall> other = start(1, other_whole);
      other->read_on();
      const std::shared_ptr<TokenSink> small = holding_.wait_for_sink(before);
      small->on_start();
      small->on_token({.id = *tokenizer_->find_token("a")});
      small->on_end({.finish_reason = FinishReason::kLength});
      EXPECT_TRUE(other->wait_for_error().ok());
    }
    held.unlock();
    EXPECT_TRUE(large->wait_for_error().ok());
  }
}

TEST_F(GenerationCallTest, WhatReadsARequestIsNotCopied) {
  struct Body {
    explicit Body(int& count) : copies(count) {}
    Body(const Body& other) : copies(other.copies) { ++copies; }
    Body(Body&& other) noexcept : copies(other.copies) {}
    ~Body() = default;
    Body& operator=(const Body&) = delete;
    Body& operator=(Body&&) = delete;
    int& copies;
  };
  int copies = 0;
  const std::shared_ptr<WatchedCall> call = make_call();
  call->start(1, [this, body = Body(copies)](CallInfo&, const std::stop_token&) { return read(); });
  holding_.wait_for_sink(0)->on_error(absl::CancelledError("gone"));
  EXPECT_FALSE(call->wait_for_error().ok());
  EXPECT_EQ(copies, 0);
}

TEST_F(GenerationCallTest, AnAnswerInOnePieceIsNotReadTooSlowly) {
  const auto whole = start();
  const std::shared_ptr<TokenSink> sink = holding_.wait_for_sink(0);
  sink->on_start();
  const TokenId letter = *tokenizer_->find_token("a");
  for (int i = 0; i < 2000; ++i) sink->on_token({.id = letter});
  sink->on_end({.finish_reason = FinishReason::kLength});
  EXPECT_TRUE(whole->wait_for_error().ok());
  EXPECT_TRUE(holding_.cancelled.empty());
}

TEST_F(GenerationCallTest, LimitsMayChangeMeanwhile) {
  limits({.preparation_threads = 1, .max_waiting = 9, .max_waiting_tokens = 1});
  const auto first = start();
  holding_.wait_for_sink(0);
  EXPECT_EQ(decode_error(start()->wait_for_error()).reason, "QUEUE_FULL");  // for its token
  state_->set_limits({.max_waiting = 9, .max_waiting_tokens = 2});
  const auto second = start();
  holding_.wait_for_sink(1);
  state_->set_limits({.max_waiting = 2});
  EXPECT_EQ(decode_error(start()->wait_for_error()).reason, "QUEUE_FULL");  // for its place
  state_->set_limits({.max_waiting = 3});
  const auto third = start();
  for (size_t i = 0; i < 3; ++i) holding_.wait_for_sink(i)->on_error(absl::CancelledError("gone"));
  EXPECT_EQ(third->wait_for_error().message(), "gone");
}

TEST_F(GenerationCallTest, AStreamGoesOnWithTheLimitItBeganWith) {
  limits({.preparation_threads = 1, .max_unread_bytes = 1000000});
  const auto stream = start(1, /*whole=*/false);
  const std::shared_ptr<TokenSink> sink = holding_.wait_for_sink(0);
  state_->set_limits({.max_unread_bytes = 1});
  sink->on_start();
  for (int i = 0; i < 3; ++i) sink->on_token({.id = *tokenizer_->find_token("a")});
  EXPECT_TRUE(holding_.cancelled.empty());
  sink->on_error(absl::CancelledError("gone"));
  stream->read_on();
  EXPECT_EQ(stream->wait_for_error().message(), "gone");
}

TEST_F(GenerationCallTest, NobodyWaitsForALargeTextToBeRead) {
  limits({.preparation_threads = 1});
  std::promise<void> free;
  const std::shared_ptr<WatchedCall> large = make_call();
  large->start(1 << 20, [this, gate = free.get_future().share()](CallInfo&, const std::stop_token&) {
    gate.wait();
    return read();
  });
  const auto small = start();
  holding_.wait_for_sink(0)->on_error(absl::CancelledError("small"));
  EXPECT_EQ(small->wait_for_error().message(), "small");
  free.set_value();
  holding_.wait_for_sink(1)->on_error(absl::CancelledError("large"));
  EXPECT_EQ(large->wait_for_error().message(), "large");
}

TEST(WorkerPool, IsBoundedAndDoesWhatItTook) {
  std::mutex held;
  held.lock();
  int done = 0;
  WorkerPool pool(1, 2);
  std::atomic<bool> begun = false;
  ASSERT_TRUE(pool.post([&] {
    begun = true;
    const std::lock_guard wait(held);
    ++done;
  }));
  while (!begun) absl::SleepFor(absl::Milliseconds(1));
  EXPECT_TRUE(pool.post([&] { ++done; }));
  EXPECT_TRUE(pool.post([&] { ++done; }));
  EXPECT_FALSE(pool.post([&] { ++done; }));
  held.unlock();
  pool.stop();
  EXPECT_EQ(done, 3);
  EXPECT_FALSE(pool.post([] {}));
}

TEST(WorkerPool, OwnersTakeTurnsAndNoneFillsIt) {
  std::mutex held;
  held.lock();
  std::string done;
  WorkerPool pool(1, 6);
  std::atomic<bool> begun = false;
  ASSERT_TRUE(pool.post([&] {
    begun = true;
    const std::lock_guard wait(held);
  }));
  while (!begun) absl::SleepFor(absl::Milliseconds(1));
  const auto post = [&](const std::string& owner) { return pool.post([&, owner] { done += owner; }, owner); };
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(post("a"));
  EXPECT_FALSE(post("a"));  // three places are left
  EXPECT_TRUE(post("b"));
  EXPECT_TRUE(post("c"));
  held.unlock();
  pool.stop();
  EXPECT_EQ(done, "abcaa");
}

TEST(WaitingRoomTest, WhoHasANameLeavesAPlaceForOthers) {
  WaitingRoom room(4, 100, 1000);
  std::vector<WaitingRoom::Place> places;
  const auto enter = [&](const std::string& owner, uint64_t bytes) {
    std::optional<WaitingRoom::Place> place = room.enter(bytes, owner);
    if (place) places.push_back(*std::move(place));
    return place.has_value();
  };
  EXPECT_TRUE(enter("a", 1) && enter("a", 1));
  EXPECT_FALSE(enter("a", 1));
  EXPECT_TRUE(enter("b", 90));
  EXPECT_FALSE(enter("b", 1));
  EXPECT_FALSE(enter("c", 9));
  EXPECT_TRUE(enter("c", 8));
  EXPECT_FALSE(enter("d", 1));
  places.clear();
  EXPECT_TRUE(enter("", 1) && enter("", 1) && enter("", 1) && enter("", 1));  // all of it where nobody has a name
}

TEST(WaitingRoomTest, LimitsMayChangeWhileSomebodyIsInIt) {
  WaitingRoom room(4, 100, 100);
  WaitingRoom::Place a = *room.enter(30, "a"), b = *room.enter(30, "b");
  EXPECT_TRUE(a.take_tokens(60));
  room.set_limits(1, 10, 10);
  EXPECT_FALSE(room.enter(1, "c"));
  EXPECT_FALSE(b.take_tokens(1) || b.take_bytes(1));
  room.set_limits(3, 61, 61);
  EXPECT_TRUE(b.take_tokens(1));
  std::optional<WaitingRoom::Place> c = room.enter(1, "c");
  EXPECT_TRUE(c.has_value());
  EXPECT_FALSE(room.enter(0, "d"));
}

TEST(WaitingRoomTest, TokensAreSharedAsPlacesAre) {
  WaitingRoom room(9, 100, 100);
  WaitingRoom::Place a = *room.enter(1, "a"), also_a = *room.enter(1, "a"), b = *room.enter(1, "b");
  EXPECT_TRUE(a.take_tokens(40));
  EXPECT_FALSE(also_a.take_tokens(21));  // 60 are left
  EXPECT_TRUE(also_a.take_tokens(20));
  EXPECT_FALSE(b.take_tokens(41));
  EXPECT_TRUE(b.take_tokens(40));
  a.leave();
  EXPECT_TRUE(a.take_tokens(1000));
  WaitingRoom::Place c = *room.enter(1, "c");
  EXPECT_TRUE(c.take_tokens(40));
}

}  // namespace
}  // namespace pkv
