// The load generator against a server that answers when the test says so: arrivals do not wait for replies, nothing is
// lost from the counts.
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <condition_variable>
#include <mutex>

#include "client/bench/runner.h"

namespace pkv::client {
namespace {

// Holds every call until the gate is open, then answers with two tokens.
class GatedService final : public v1::GenerationService::Service {
 public:
  grpc::Status GenerateStream(grpc::ServerContext* context, const v1::GenerateRequest*,
                              grpc::ServerWriter<v1::GenerateStreamResponse>* writer) override {
    {
      std::unique_lock lock(mutex_);
      most_ = std::max(most_, ++inside_);
      ++arrived_;
      changed_.notify_all();
      while (!open_ && arrived_ < open_at_ && !context->IsCancelled())
        changed_.wait_for(lock, std::chrono::milliseconds(5));
      --inside_;
    }
    v1::GenerateStreamResponse event;
    event.mutable_start();
    writer->Write(event);
    event.mutable_delta()->add_token_ids(1);
    writer->Write(event);
    writer->Write(event);
    event.mutable_end()->mutable_usage()->set_completion_tokens(2);
    writer->Write(event);
    return grpc::Status::OK;
  }
  void open() {
    const std::lock_guard lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }
  // Opens by itself once so many calls have arrived.
  void open_at(int calls) { open_at_ = calls; }
  int arrived() {
    const std::lock_guard lock(mutex_);
    return arrived_;
  }
  int most() {
    const std::lock_guard lock(mutex_);
    return most_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool open_ = false;
  int open_at_ = 1 << 30;
  int inside_ = 0, arrived_ = 0, most_ = 0;
};

class RunnerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(&service_);
    server_ = builder.BuildAndStart();
    ASSERT_NE(server_, nullptr);
    stubs_.push_back(v1::GenerationService::NewStub(
        grpc::CreateChannel("127.0.0.1:" + std::to_string(port), grpc::InsecureChannelCredentials())));
  }
  void TearDown() override {
    service_.open();
    server_->Shutdown();
  }
  void run(const std::function<void(BenchOptions&)>& change, const std::function<void(const BenchState&)>& show = {}) {
    BenchOptions options;
    options.prompt_tokens = "4";
    options.policies = "full";
    change(options);
    ASSERT_EQ(plan_bench(options, plan_), "");
    const PromptPool pool{.vocab_size = 10, .max_model_len = 100};
    const BenchRequests requests(plan_, pool, trace_, plan_.policies, 1);
    BenchRunner runner(plan_, trace_, requests, stubs_, record_, stop_, [&](const BenchState& state) {
      if (show) show(state);
    });
    runner.run();
    interrupted_ = runner.interrupted();
    seconds_ = runner.measured_seconds();
  }

  GatedService service_;
  std::unique_ptr<grpc::Server> server_;
  BenchRunner::Stubs stubs_;
  BenchPlan plan_;
  std::vector<TraceLine> trace_;
  BenchRecord record_{1, {}};
  std::atomic<bool> stop_ = false;
  bool interrupted_ = false;
  double seconds_ = 0;
};

// No call is answered before the last has arrived: a loop that waited for replies would never end.
TEST_F(RunnerTest, ArrivalsDoNotWaitForReplies) {
  service_.open_at(40);
  run([](BenchOptions& options) {
    options.rate = "2000";
    options.requests = "40";
  });
  EXPECT_EQ(record_.all().sums.completed, 40);
  EXPECT_EQ(record_.all().calls(), 40);
  EXPECT_EQ(record_.all().sums.generated_tokens, 80);
  EXPECT_EQ(record_.all().first_token.count(), 40);
  EXPECT_EQ(record_.all().inter_token.count(), 40);
  EXPECT_FALSE(interrupted_);
  EXPECT_GT(seconds_, 0);
}

// Latencies count from when a call was due: all of them wait for the last arrival, the first one longest.
TEST_F(RunnerTest, LatenciesCountFromTheSchedule) {
  service_.open_at(11);
  run([](BenchOptions& options) {
    options.rate = "20";
    options.spacing = "constant";
    options.requests = "11";
  });
  EXPECT_GE(record_.all().first_token.max(), 0.5);  // the first is due at 0, the last at 0.5 s
  EXPECT_GE(record_.all().total.max(), record_.all().first_token.max());
}

TEST_F(RunnerTest, WhatIsBeyondTheBoundIsDroppedAndCounted) {
  run(
      [](BenchOptions& options) {
        options.rate = "2000";
        options.requests = "30";
        options.max_in_flight = "10";
      },
      [&](const BenchState& state) {
        if (state.started == 30) service_.open();
      });
  EXPECT_EQ(record_.all().sums.completed, 10);
  EXPECT_EQ(record_.all().dropped, 20);
  EXPECT_EQ(service_.arrived(), 10);
  EXPECT_TRUE(record_.any_unanswered());
}

TEST_F(RunnerTest, AClosedLoopKeepsSoManyInFlight) {
  service_.open_at(5);  // five at once, or it never begins
  run([](BenchOptions& options) {
    options.concurrency = "5";
    options.requests = "40";
    options.warmup = "3req";
  });
  EXPECT_EQ(record_.all().sums.completed, 40);
  EXPECT_EQ(record_.warmup_calls(), 3);
  EXPECT_EQ(service_.most(), 5);
  EXPECT_EQ(service_.arrived(), 43);
}

TEST_F(RunnerTest, AStopCancelsWhatRuns) {
  run(
      [](BenchOptions& options) {
        options.rate = "1000";
        options.duration = "1000";
      },
      [&](const BenchState& state) { stop_ = stop_ || (state.started >= 20 && service_.arrived() > 0); });
  EXPECT_TRUE(interrupted_);
  EXPECT_GE(record_.all().cancelled, 20);
  EXPECT_EQ(record_.all().cancelled, record_.all().calls());
  EXPECT_EQ(record_.all().failed, 0);
}

TEST_F(RunnerTest, ATraceIsReplayed) {
  std::vector<BenchPolicy> mix;
  std::string lines;
  for (int i = 0; i < 12; ++i) lines += "{\"at\": " + std::to_string(i) + "}\n";
  ASSERT_EQ(parse_trace(lines, trace_, mix), "");
  service_.open();
  run([](BenchOptions& options) {
    options.trace = "lines";
    options.speed = "1000";
    options.warmup = "2req";
    options.requests = "7";
  });
  EXPECT_EQ(record_.warmup_calls(), 2);
  EXPECT_EQ(record_.all().sums.completed, 7);
  EXPECT_EQ(service_.arrived(), 9);
}

TEST_F(RunnerTest, DeadlinesAreFailures) {
  run([](BenchOptions& options) {
    options.rate = "1000";
    options.requests = "4";
    options.timeout = "0.05";
  });
  EXPECT_EQ(record_.all().errors.at("DEADLINE_EXCEEDED"), 4);
  EXPECT_EQ(record_.all().failed, 4);
  EXPECT_FALSE(record_.any_completed());
}

TEST_F(RunnerTest, ADeadServerIsAFailureNotAHang) {
  service_.open();
  server_->Shutdown();
  run([](BenchOptions& options) {
    options.rate = "1000";
    options.requests = "5";
  });
  EXPECT_EQ(record_.all().errors.at("UNAVAILABLE"), 5);
}

}  // namespace
}  // namespace pkv::client
