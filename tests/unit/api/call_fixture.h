// Calls with an engine that does what the test says and a transport that is the test itself.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <new>
#include <utility>
#include <vector>

#include "server/api/generation_call.h"
#include "tests/unit/api/api_fixture.h"

namespace pkv {

// Takes every request and computes none of it.
class HoldingEngine : public StillEngine {
 public:
  absl::Status submit(Prepared, const JobClaim&, std::shared_ptr<TokenSink> sink) override {
    const std::lock_guard lock(mutex);
    sinks.push_back(std::move(sink));
    changed.notify_all();
    return absl::OkStatus();
  }
  void cancel(const TokenSink* sink) override {
    const std::lock_guard lock(mutex);
    cancelled.push_back(sink);
    changed.notify_all();
  }
  Engine::State state() const override { return state_now; }
  std::shared_ptr<TokenSink> wait_for_sink(size_t index) {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return sinks.size() > index; });
    return sinks[index];
  }

  std::mutex mutex;
  std::condition_variable changed;
  std::vector<std::shared_ptr<TokenSink>> sinks;
  std::vector<const TokenSink*> cancelled;
  std::atomic<Engine::State> state_now = Engine::State::kServing;
};

class WatchedCall final : public GenerationCall {
 public:
  WatchedCall(ServerState& state, bool whole, CallInfo info = {}) : GenerationCall(state, std::move(info)) {
    if (whole) answer_whole();
  }
  // Lets the message go that is under way, and all after it.
  void read_on() {
    {
      const std::lock_guard lock(mutex_);
      reads_ = true;
    }
    sent(true);
  }
  // The message under way has been so for too long.
  void is_late() { read_too_slowly(); }
  absl::Status wait_for_error() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return ended_; });
    return error_;
  }

  std::atomic<bool> no_memory = false;         // for messages of the answer
  std::atomic<int> errors_without_memory = 0;  // the first ones
  // Called while its end is made; set before that.
  std::function<void(const RequestResult&)> at_end;

 private:
  void send_start() override { hold(); }
  void send_piece(OutputAssembler::Piece) override {
    run_out();
    hold();
  }
  void send_end(OutputAssembler::Piece) override {
    if (at_end) at_end(result());
    run_out();
    end(absl::OkStatus());
  }
  void run_out() const {
    if (no_memory) throw std::bad_alloc();
  }
  void send_error() override {
    if (errors_without_memory-- > 0) throw std::bad_alloc();
    end(error());
  }
  void hold() {
    {
      const std::lock_guard lock(mutex_);
      if (!reads_) return;
    }
    sent(true);
  }
  void end(const absl::Status& status) {
    const std::lock_guard lock(mutex_);
    error_ = status;
    ended_ = true;
    changed_.notify_all();
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  bool reads_ = false;
  bool ended_ = false;
  absl::Status error_;
};

class CallTest : public ApiTest {
 protected:
  CallTest() { served_.engine = &holding_; }
  void limits(const FrontLimits& limits) {
    state_ = std::make_unique<ServerState>(*PolicyCatalog::create(policies(), KvDtype::kF16), log_, 7, limits);
    state_->publish(&served_);
  }
  std::shared_ptr<WatchedCall> make_call(bool whole = true, CallInfo info = {}) {
    return std::make_shared<WatchedCall>(*state_, whole, std::move(info));
  }
  // A request for nothing in particular.
  absl::StatusOr<AcceptedRequest> read() {
    ++reads_;
    auto request = std::make_shared<Request>(
        Request{.prompt = std::vector<TokenId>(prompt_tokens_, 5), .end_tokens = {test::kTinyEndToken}});
    return AcceptedRequest{.served = &served_, .valid = {.prepared = *holding_.prepare(std::move(request))}};
  }
  std::shared_ptr<WatchedCall> start(uint64_t bytes = 1, bool whole = true) {
    std::shared_ptr<WatchedCall> call = make_call(whole);
    call->start(bytes, [this](CallInfo&, const std::stop_token&) { return read(); });
    return call;
  }

  HoldingEngine holding_;
  std::atomic<int> reads_ = 0;
  std::atomic<size_t> prompt_tokens_ = 1;  // of what is read
};

}  // namespace pkv
