// Memory runs out at any allocation between a call's arrival and the engine, or of what the engine tells it: that call
// alone ends, and whoever comes next finds the server as it was.
#include <gtest/gtest.h>

#include "absl/time/clock.h"
#include "tests/support/failing_new.h"
#include "tests/unit/api/call_fixture.h"

namespace pkv {
namespace {

class CallAllocationTest : public CallTest {
 protected:
  CallAllocationTest() { limits({.preparation_threads = 1, .max_waiting = 1}); }
  // The first of them, and of some the one after it: that of the refusal.
  static int64_t failures(int64_t n) { return n % 4 == 3 ? 2 : 1; }
  // Whether it came to that allocation. `call` reached the engine or has ended for want of memory.
  bool settle(const std::shared_ptr<WatchedCall>& call, size_t sinks_before) {
    const bool failed = failed_.exchange(false);
    if (!failed) holding_.wait_for_sink(sinks_before)->on_error(absl::CancelledError("the end"));
    const absl::Status status = call->wait_for_error();
    EXPECT_EQ(status.code(), failed ? absl::StatusCode::kResourceExhausted : absl::StatusCode::kCancelled) << status;
    return failed;
  }
  // The one place there is, and both pools.
  void expect_room_for_another() {
    const size_t sinks = holding_.sinks.size();
    const std::shared_ptr<WatchedCall> next = start();
    holding_.wait_for_sink(sinks)->on_error(absl::CancelledError("the end"));
    EXPECT_TRUE(absl::IsCancelled(next->wait_for_error()));
  }

  std::atomic<bool> failed_ = false;
};

TEST_F(CallAllocationTest, OnTheThreadThatTakesIt) {
  int64_t n = 0;
  bool failed = true;
  for (; failed; ++n) {
    const size_t sinks = holding_.sinks.size();
    const std::shared_ptr<WatchedCall> call = make_call();
    GenerationCall::Reader reader = [this](CallInfo&, const std::stop_token&) { return read(); };
    test::fail_allocations(n, failures(n));
    call->start(1, std::move(reader));
    failed_ = test::failures_left() < failures(n);
    test::fail_allocations(0, 0);
    failed = settle(call, sinks);
    expect_room_for_another();
    ASSERT_FALSE(HasFailure()) << "at allocation " << n;
  }
  EXPECT_GT(n, 3);
}

TEST_F(CallAllocationTest, OnTheThreadThatPreparesIt) {
  int64_t n = 0;
  bool failed = true;
  for (; failed; ++n) {
    const size_t sinks = holding_.sinks.size();
    const std::shared_ptr<WatchedCall> call = make_call();
    call->start(1, [&](CallInfo&, const std::stop_token&) {
      absl::StatusOr<AcceptedRequest> accepted = read();
      test::fail_allocations(n, failures(n));
      return accepted;
    });
    // What comes after it on the one thread there is knows whether it came to that.
    std::atomic<bool> told = false;
    const auto probe = [&] {
      failed_ = test::failures_left() < failures(n);
      test::fail_allocations(0, 0);
      told = true;
    };
    while (!state_->preparation().post(probe)) absl::SleepFor(absl::Milliseconds(1));
    while (!told) absl::SleepFor(absl::Milliseconds(1));
    failed = settle(call, sinks);
    expect_room_for_another();
    ASSERT_FALSE(HasFailure()) << "at allocation " << n;
  }
  EXPECT_GT(n, 0);
}

TEST_F(CallAllocationTest, OnTheEnginesThread) {
  const TokenLogprob token{.id = *tokenizer_->find_token("a")};
  RequestResult result{.finish_reason = FinishReason::kLength};
  result.cache.layers.resize(2);
  int64_t n = 0;
  bool failed = true;
  for (; failed; ++n) {
    const size_t sinks = holding_.sinks.size();
    const std::shared_ptr<WatchedCall> call = start();
    const std::shared_ptr<TokenSink> sink = holding_.wait_for_sink(sinks);
    test::fail_allocations(n, failures(n));
    try {
      sink->on_start();
      sink->on_token(token);
      sink->on_end(result);
    } catch (const std::bad_alloc&) {
      failed_ = true;
    }
    for (bool told = !failed_; !told;) {
      try {
        sink->on_error(absl::Status(absl::StatusCode::kResourceExhausted, ""));
        told = true;
      } catch (const std::bad_alloc&) {
      }
    }
    test::fail_allocations(0, 0);
    failed = failed_.exchange(false);
    const absl::Status status = call->wait_for_error();
    EXPECT_EQ(error_reason(status), failed ? "OUT_OF_MEMORY" : "") << status;
    expect_room_for_another();
    ASSERT_FALSE(HasFailure()) << "at allocation " << n;
  }
  EXPECT_GT(n, 3);
  EXPECT_EQ(state_->metrics().snapshot().rejected.at("OUT_OF_MEMORY"), static_cast<uint64_t>(n - 1));
}

}  // namespace
}  // namespace pkv
