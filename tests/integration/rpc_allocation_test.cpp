// Memory runs out at any allocation of this server's own code for a gRPC call: on gRPC's thread that brings it, on the
// threads that prepare and deliver it, and at its end. The call ends with an error, nothing of it stays, and whoever
// comes next is answered. Spared are gRPC's own allocations, since nothing between its core and its threads catches an
// exception, which ends the process: handlers are armed only while they run, and on the other threads are reactors that
// no call of gRPC's is bound to, which note what they are to send.
#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "server/rpc/generation_service.h"
#include "server/rpc/prepared_call.h"
#include "server/rpc/stats_service.h"
#include "server/rpc/stream_call.h"
#include "server/rpc/unary_call.h"
#include "server/rpc/wire.h"
#include "tests/integration/answering_engine.h"
#include "tests/support/failing_new.h"
#include "tests/unit/api/call_fixture.h"

namespace pkv {
namespace {

namespace pb = ::pyramidkv::v1;
using ::testing::HasSubstr;
using Context = grpc::CallbackServerContext;

constexpr absl::Duration kUnreadTime = absl::Seconds(1);
constexpr size_t kMaxWatchers = 64;  // more than there are at a time while memory runs out

// Which allocation of the handler that runs next fails; and whether it came to that.
struct Fault {
  std::atomic<int64_t> at = -1;  // none
  std::atomic<bool> came = false;
};

// While it lives, the thread's memory runs out as `fault` says.
class Armed {
 public:
  explicit Armed(Fault& fault) : fault_(fault) {
    if (fault.at >= 0) test::fail_allocations(fault.at, 1);
  }
  ~Armed() {
    if (fault_.at >= 0) fault_.came = test::failures_left() == 0;
    test::fail_allocations(0, 0);
  }
  Armed(const Armed&) = delete;
  Armed& operator=(const Armed&) = delete;

 private:
  Fault& fault_;
};

class ArmedGeneration final : public RawGenerationService {
 public:
  ArmedGeneration(Fault& fault, ServerState& state, std::shared_ptr<ReplyWatch> watch)
      : fault_(fault), service_(state, std::move(watch)) {}
  grpc::ServerUnaryReactor* Generate(Context* context, const grpc::ByteBuffer* request,
                                     grpc::ByteBuffer* response) override {
    const Armed armed(fault_);
    return service_.Generate(context, request, response);
  }
  grpc::ServerWriteReactor<grpc::ByteBuffer>* GenerateStream(Context* context,
                                                             const grpc::ByteBuffer* request) override {
    const Armed armed(fault_);
    return service_.GenerateStream(context, request);
  }
  grpc::ServerUnaryReactor* Tokenize(Context* context, const grpc::ByteBuffer* request,
                                     grpc::ByteBuffer* response) override {
    const Armed armed(fault_);
    return service_.Tokenize(context, request, response);
  }

 private:
  Fault& fault_;
  GenerationService service_;
};

class ArmedStats final : public RawStatsService {
 public:
  ArmedStats(Fault& fault, ServerState& state, const std::shared_ptr<ReplyWatch>& watch)
      : fault_(fault), service_(state, watch) {}
  grpc::ServerUnaryReactor* GetStats(Context* context, const grpc::ByteBuffer* request,
                                     grpc::ByteBuffer* response) override {
    const Armed armed(fault_);
    return service_.GetStats(context, request, response);
  }
  StatsWatch::Reactor* WatchStats(Context* context, const grpc::ByteBuffer* request) override {
    const Armed armed(fault_);
    return service_.WatchStats(context, request);
  }

 private:
  Fault& fault_;
  StatsService service_;
};

class RpcAllocationTest : public CallTest {
 protected:
  RpcAllocationTest() {
    limits({.preparation_threads = 1,
            .max_waiting = 1,
            .max_unread_seconds = absl::ToDoubleSeconds(kUnreadTime),
            .max_watchers = kMaxWatchers});
    watch_ = std::make_shared<ReplyWatch>(*state_);
  }
  ~RpcAllocationTest() override {
    holding_.sinks.clear();
    EXPECT_EQ(state_->open_calls(), 0);
    EXPECT_TRUE(state_->calls().rows().empty());
  }

  Fault fault_;
  std::shared_ptr<ReplyWatch> watch_;
};

// ---- on gRPC's thread

class HandlerAllocationTest : public RpcAllocationTest {
 protected:
  HandlerAllocationTest() {
    served_.engine = &engine_;
    generation_service_ = std::make_unique<ArmedGeneration>(fault_, *state_, watch_);
    stats_service_ = std::make_unique<ArmedStats>(fault_, *state_, watch_);
    grpc::ServerBuilder builder;
    builder.RegisterService(generation_service_.get());
    builder.RegisterService(stats_service_.get());
    server_ = builder.BuildAndStart();
    const auto channel = server_->InProcessChannel({});
    generation_ = pb::GenerationService::NewStub(channel);
    stats_ = pb::StatsService::NewStub(channel);
  }
  ~HandlerAllocationTest() override {
    // What was forgotten is late by now.
    absl::SleepFor(2 * kUnreadTime);
    EXPECT_EQ(state_->metrics().snapshot().rejected.at("SLOW_READER"), 0u);
    server_->Shutdown();
    server_->Wait();
  }

  // `call`: one call, whose status it returns.
  template <typename Call>
  void run_out_everywhere(const Call& call) {
    int errors = 0;
    for (fault_.at = 0;; ++fault_.at) {
      fault_.came = false;
      const grpc::Status status = call();
      if (!status.ok()) ++errors;
      if (!fault_.came) {
        EXPECT_TRUE(status.ok()) << status.error_message();
        break;
      }
      const int64_t at = fault_.at.exchange(-1);
      const grpc::Status next = call();
      ASSERT_TRUE(next.ok()) << "after allocation " << at << ": " << next.error_message();
      fault_.at = at;
    }
    fault_.at = -1;
    EXPECT_GT(errors, 0);
  }
  static pb::GenerateRequest request() {
    pb::GenerateRequest request;
    request.set_prompt("hello");
    request.mutable_sampling()->set_max_tokens(1);
    return request;
  }

  AnsweringEngine engine_;
  std::unique_ptr<ArmedGeneration> generation_service_;
  std::unique_ptr<ArmedStats> stats_service_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<pb::GenerationService::Stub> generation_;
  std::unique_ptr<pb::StatsService::Stub> stats_;
};

TEST_F(HandlerAllocationTest, OfACallInOneMessage) {
  run_out_everywhere([this] {
    grpc::ClientContext context;
    pb::GenerateResponse response;
    return generation_->Generate(&context, request(), &response);
  });
}

TEST_F(HandlerAllocationTest, OfAStream) {
  run_out_everywhere([this] {
    grpc::ClientContext context;
    const auto reader = generation_->GenerateStream(&context, request());
    for (pb::GenerateStreamResponse event; reader->Read(&event);) {
    }
    return reader->Finish();
  });
}

TEST_F(HandlerAllocationTest, OfACallWithoutTheEngine) {
  run_out_everywhere([this] {
    grpc::ClientContext context;
    pb::TokenizeRequest text;
    text.set_text("hello");
    pb::TokenizeResponse response;
    return generation_->Tokenize(&context, text, &response);
  });
}

TEST_F(HandlerAllocationTest, OfACallThatIsAnsweredAtOnce) {
  run_out_everywhere([this] {
    grpc::ClientContext context;
    pb::GetStatsResponse response;
    return stats_->GetStats(&context, pb::GetStatsRequest(), &response);
  });
}

TEST_F(HandlerAllocationTest, OfACallThatIsRefusedAtOnce) {
  state_->authenticator().replace({{.hash = hash_key("a-key-of-mine"), .name = "me"}});
  run_out_everywhere([this] {
    grpc::ClientContext context;
    pb::GetStatsResponse response;
    const grpc::Status status = stats_->GetStats(&context, pb::GetStatsRequest(), &response);
    return status.error_code() == grpc::StatusCode::UNAUTHENTICATED ? grpc::Status::OK : status;
  });
}

TEST_F(HandlerAllocationTest, OfACallThatIsRefusedWithMetadata) {
  state_->authenticator().replace({{.hash = hash_key("a-key-of-mine"), .name = "me", .stats = false}});
  run_out_everywhere([this] {
    grpc::ClientContext context;
    context.AddMetadata("authorization", "Bearer a-key-of-mine");
    pb::GetStatsResponse response;
    const grpc::Status status = stats_->GetStats(&context, pb::GetStatsRequest(), &response);
    return status.error_code() == grpc::StatusCode::PERMISSION_DENIED ? grpc::Status::OK : status;
  });
}

// A watcher and whether it was told of the state, which may also say why not.
struct OpenWatch {
  explicit OpenWatch(pb::StatsService::Stub& stub) : reader(stub.WatchStats(&context, seldom())) {
    pb::WatchStatsResponse state;
    told = reader->Read(&state);
    if (!told) status = reader->Finish();
  }
  ~OpenWatch() {
    if (!told) return;
    context.TryCancel();
    for (pb::WatchStatsResponse state; reader->Read(&state);) {
    }
    reader->Finish();
  }
  // Nobody reads a second message, so there must be none.
  static pb::WatchStatsRequest seldom() {
    pb::WatchStatsRequest request;
    request.mutable_interval()->set_seconds(3600);
    return request;
  }
  grpc::ClientContext context;
  std::unique_ptr<grpc::ClientReader<pb::WatchStatsResponse>> reader;
  bool told = false;
  grpc::Status status;
};

TEST_F(HandlerAllocationTest, OfAWatcher) {
  run_out_everywhere([this] { return OpenWatch(*stats_).status; });
  // One that was forgotten would hold its place for good; those that have left may still be going.
  const auto watching = [this] {
    std::vector<std::unique_ptr<OpenWatch>> watches;
    for (size_t i = 0; i < kMaxWatchers; ++i) watches.push_back(std::make_unique<OpenWatch>(*stats_));
    return std::ranges::count_if(watches, [](const auto& watch) { return watch->told; });
  };
  const absl::Time end = absl::Now() + absl::Minutes(1);
  int64_t most = 0;
  while (most < int64_t{kMaxWatchers} && absl::Now() < end) most = watching();
  EXPECT_EQ(most, int64_t{kMaxWatchers});
}

// ---- on our own threads

class UnboundAllocationTest : public RpcAllocationTest {
 protected:
  // When everything that `pool`, of one thread, was given has been done; `then` is called on its thread.
  static void when_idle(WorkerPool& pool, const std::function<void()>& then) {
    std::atomic<bool> done = false;
    const auto probe = [&] {
      then();
      done = true;
    };
    while (!pool.post(probe)) absl::SleepFor(absl::Milliseconds(1));
    while (!done) absl::SleepFor(absl::Milliseconds(1));
  }
  void arm() const { test::fail_allocations(fault_.at, 1); }
  void disarm() {
    fault_.came = test::failures_left() == 0;
    test::fail_allocations(0, 0);
  }
  // What the log says of the call.
  static std::string end(grpc::internal::ServerReactor& reactor) {
    ::testing::internal::CaptureStderr();
    reactor.OnDone();
    return ::testing::internal::GetCapturedStderr();
  }
  // `call` runs the call `fault_` is for and returns what the log says of it.
  template <typename Call>
  void run_out_everywhere(const Call& call) {
    log_.set_level("info");
    for (fault_.at = 0;; ++fault_.at) {
      const std::string line = call();
      if (!fault_.came) {
        EXPECT_THAT(line, HasSubstr("code=OK"));
        break;
      }
      EXPECT_THAT(line, ::testing::AnyOf(HasSubstr("code=OK"), HasSubstr("reason=OUT_OF_MEMORY")));
      if (line.find("OUT_OF_MEMORY") != std::string::npos) ++errors_;
      ASSERT_TRUE(state_->waiting().enter(1, "")) << "after allocation " << fault_.at;
      ASSERT_FALSE(HasFailure()) << "at allocation " << fault_.at;
    }
    EXPECT_GT(errors_, 0);
  }
  // The engine's part of a generation that the test plays.
  void answer(size_t sinks_before) {
    const std::shared_ptr<TokenSink> sink = holding_.wait_for_sink(sinks_before);
    when_idle(state_->preparation(), [] {});
    when_idle(state_->delivery(), [this] { arm(); });
    answer_at_once(*sink);
  }
  GenerationCall::Reader reader() {
    return [this](CallInfo&, const std::stop_token&) { return read(); };
  }

  int errors_ = 0;
};

TEST_F(UnboundAllocationTest, OnTheThreadThatPreparesAReply) {
  run_out_everywhere([this] {
    Context context;
    grpc::ByteBuffer response;
    const auto make = [this](const std::stop_token&) -> absl::StatusOr<grpc::ByteBuffer> {
      arm();
      pb::TokenizeResponse message;
      message.add_token_ids(1);
      return serialize_message(message);
    };
    auto* reactor = start_prepared_call(*state_, watch_, {.method = "Tokenize"}, context, response, 1, make);
    when_idle(state_->preparation(), [this] { disarm(); });
    return end(*reactor);
  });
}

TEST_F(UnboundAllocationTest, OnTheThreadThatDeliversAnAnswer) {
  run_out_everywhere([this] {
    Context context;
    grpc::ByteBuffer response;
    const size_t sinks = holding_.sinks.size();
    auto* reactor = start_unary_call(*state_, watch_, {.method = "Generate"}, context, response, 1, reader());
    answer(sinks);
    when_idle(state_->delivery(), [this] { disarm(); });
    return end(*reactor);
  });
}

TEST_F(UnboundAllocationTest, OnTheThreadThatDeliversAStream) {
  constexpr int kMessages = 4;  // start, what is ready, the end; and one that the end of memory may take
  run_out_everywhere([this] {
    Context context;
    const size_t sinks = holding_.sinks.size();
    auto* reactor = start_stream_call(*state_, watch_, {.method = "GenerateStream"}, context, 1, reader());
    answer(sinks);
    for (int i = 0; i < kMessages; ++i) {
      when_idle(state_->delivery(), [] {});
      reactor->OnWriteDone(true);
    }
    when_idle(state_->delivery(), [this] { disarm(); });
    return end(*reactor);
  });
}

TEST_F(UnboundAllocationTest, AtTheEndOfACall) {
  bool came = true;
  for (int64_t n = 0; came; ++n) {
    Context context;
    grpc::ByteBuffer response;
    const auto make = [](const std::stop_token&) -> absl::StatusOr<grpc::ByteBuffer> { return grpc::ByteBuffer(); };
    auto* reactor = start_prepared_call(*state_, watch_, {.method = "Tokenize"}, context, response, 1, make);
    when_idle(state_->preparation(), [] {});
    test::fail_allocations(n, 1);
    reactor->OnDone();
    came = test::failures_left() == 0;
    test::fail_allocations(0, 0);
    ASSERT_TRUE(state_->waiting().enter(1, "")) << "after allocation " << n;
  }
}

}  // namespace
}  // namespace pkv
