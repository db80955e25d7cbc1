// WatchStats: the first message at once, then the newest at every tick, for as many as are allowed, until the end.
#include <gmock/gmock.h>

#include <limits>
#include <list>
#include <optional>
#include <thread>

#include "absl/strings/str_cat.h"
#include "tests/integration/server_fixture.h"

namespace pkv {
namespace {

constexpr int kMaxWatchers = 64;

// One watch that a test reads step by step.
class OpenWatch {
 public:
  OpenWatch(pb::StatsService::Stub& stub, const pb::WatchStatsRequest& request)
      : reader_(stub.WatchStats(&context_, request)) {}
  ~OpenWatch() {
    context_.TryCancel();
    if (!finished_) finish();
  }
  // Nothing where the stream has ended.
  std::optional<pb::Stats> next() {
    pb::WatchStatsResponse message;
    if (!reader_->Read(&message)) return std::nullopt;
    return message.stats();
  }
  void cancel() { context_.TryCancel(); }
  grpc::Status finish() {
    while (next()) {
    }
    finished_ = true;
    return reader_->Finish();
  }

 private:
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReader<pb::WatchStatsResponse>> reader_;
  bool finished_ = false;
};

pb::WatchStatsRequest every(absl::Duration interval, bool rows = false) {
  pb::WatchStatsRequest request;
  request.mutable_interval()->set_seconds(absl::ToInt64Seconds(interval));
  request.mutable_interval()->set_nanos(static_cast<int32_t>(absl::ToInt64Nanoseconds(interval % absl::Seconds(1))));
  request.set_include_requests(rows);
  return request;
}

class WatchTest : public ServerTest {
 protected:
  grpc::Status refusal(const pb::WatchStatsRequest& request) {
    OpenWatch watch(*stats_, request);
    EXPECT_FALSE(watch.next());
    return watch.finish();
  }
};

TEST_F(WatchTest, TheFirstMessageComesAtOnceAndIsTheState) {
  start_and_load();
  // The second would come in an hour.
  OpenWatch watch(*stats_, every(absl::Hours(1)));
  const auto first = watch.next();
  ASSERT_TRUE(first);
  EXPECT_EQ(first->state(), pb::SERVER_STATE_SERVING);
  EXPECT_EQ(first->policies_size(), 12);
  EXPECT_EQ(first->memory().kv_pool_bytes(), uint64_t{128} << 20);
  EXPECT_EQ(first->memory().kv_free_bytes(), uint64_t{128} << 20);
}

TEST_F(WatchTest, TheSequenceGrowsWhileSomethingRuns) {
  start_and_load();
  OpenWatch watch(*stats_, every(absl::Milliseconds(50), true));
  const auto first = watch.next();
  ASSERT_TRUE(first);
  EXPECT_EQ(first->requests_size(), 0);
  OpenStream running(*generation_, request("hello world", kEndless));
  ASSERT_TRUE(running.read_to_delta());
  uint64_t sequence = first->sequence();
  double uptime = -1;
  for (int i = 0, grown = 0; grown < 3; ++i) {
    ASSERT_LT(i, 1000);
    const auto now = watch.next();
    ASSERT_TRUE(now);
    ASSERT_GE(now->sequence(), sequence);
    const double up = static_cast<double>(now->uptime().seconds()) + now->uptime().nanos() * 1e-9;
    ASSERT_GT(up, uptime);
    if (now->sequence() > sequence && now->requests_size() == 1) ++grown;
    sequence = now->sequence();
    uptime = up;
  }
}

TEST_F(WatchTest, LoadingIsWatchedIntoServing) {
  start();
  OpenWatch watch(*stats_, every(absl::Milliseconds(50)));
  auto now = watch.next();
  ASSERT_TRUE(now);
  EXPECT_EQ(now->state(), pb::SERVER_STATE_LOADING);
  EXPECT_EQ(now->policies_size(), 0);
  ASSERT_TRUE(app_->load().ok());
  for (int i = 0; now && now->state() == pb::SERVER_STATE_LOADING && i < 1000; ++i) now = watch.next();
  ASSERT_TRUE(now);
  EXPECT_EQ(now->state(), pb::SERVER_STATE_SERVING);
  EXPECT_EQ(now->policies_size(), 12);
}

TEST_F(WatchTest, IntervalsOutOfRangeAreRefusedByName) {
  start();
  pb::WatchStatsRequest crooked = every(absl::Seconds(2));
  crooked.mutable_interval()->set_nanos(1'000'000'000);
  pb::WatchStatsRequest endless;
  endless.mutable_interval()->set_seconds(std::numeric_limits<int64_t>::max());
  for (const pb::WatchStatsRequest& request :
       {every(absl::ZeroDuration()), every(absl::Milliseconds(49)), every(-absl::Seconds(1)),
        every(absl::Hours(1) + absl::Seconds(1)), crooked, endless}) {
    const grpc::Status status = refusal(request);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << request.ShortDebugString();
    EXPECT_EQ(reason(status), "BAD_INPUT");
    EXPECT_EQ(status.error_message(), "interval: must be 50ms to 1h");
  }
}

TEST_F(WatchTest, WatchersAreCappedAndACancelledOneMakesRoom) {
  start_and_load();
  const pb::WatchStatsRequest rarely = every(absl::Hours(1));
  std::list<OpenWatch> watches;
  for (int i = 0; i < kMaxWatchers; ++i) ASSERT_TRUE(watches.emplace_back(*stats_, rarely).next()) << i;
  const grpc::Status status = refusal(rarely);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(reason(status), "TOO_MANY_WATCHERS");
  EXPECT_EQ(metadata(status)["max"], absl::StrCat(kMaxWatchers));
  EXPECT_EQ(stats().state(), pb::SERVER_STATE_SERVING);
  watches.front().cancel();
  EXPECT_EQ(watches.front().finish().error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_TRUE(eventually([&] { return OpenWatch(*stats_, rarely).next().has_value(); }));
}

// Messages of many requests fill the little that the transport keeps for a client that does not read.
TEST_F(WatchTest, WhoReadsSlowlyGetsTheNewestStateNotTheOldOnes) {
  start_and_load([](Config& config) { config.scheduler.max_running = 1; });
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
  const auto channel = grpc::CreateCustomChannel("127.0.0.1:" + std::to_string(app_->port()),
                                                 grpc::InsecureChannelCredentials(), arguments);
  const auto stub = pb::StatsService::NewStub(channel);
  std::list<OpenStream> streams;
  for (int i = 0; i < 200; ++i) {
    pb::GenerateRequest wish = request("hello world", kEndless);
    wish.set_request_id(absl::StrCat(std::string(120, 'x'), i));
    streams.emplace_back(*generation_, wish);
  }
  ASSERT_TRUE(eventually([this] { return stats().scheduler().waiting() == 199; }));
  OpenWatch slow(*stub, every(absl::Milliseconds(50), true));
  ASSERT_EQ(slow.next()->requests_size(), 200);
  // Another watch counts the ticks that pass meanwhile.
  OpenWatch quick(*stats_, every(absl::Milliseconds(50)));
  for (int i = 0; i < 40; ++i) ASSERT_TRUE(quick.next());
  streams.clear();
  ASSERT_TRUE(eventually_idle());
  int old = 0;
  for (auto now = slow.next(); now && now->requests_size() > 0; now = slow.next()) ++old;
  EXPECT_LT(old, 20);
}

TEST_F(WatchTest, DrainingIsWatchedAndStoppingEndsTheStreams) {
  start_and_load();
  OpenStream running(*generation_, request("hello world", kEndless));
  ASSERT_TRUE(running.read_to_delta());
  OpenWatch often(*stats_, every(absl::Milliseconds(50))), rarely(*stats_, every(absl::Hours(1)));
  ASSERT_TRUE(often.next());
  ASSERT_TRUE(rarely.next());
  absl::Status stopped;
  std::thread stop([&] { stopped = app_->stop(absl::Now() + absl::Minutes(5)); });
  bool draining = false;
  for (int i = 0; !draining && i < 1000; ++i) {
    const auto now = often.next();
    if (!now) break;
    draining = now->state() == pb::SERVER_STATE_DRAINING;
  }
  EXPECT_TRUE(draining);
  running.cancel();
  const grpc::Status status = rarely.finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(reason(status), "DRAINING");
  EXPECT_FALSE(often.finish().ok());
  stop.join();
  EXPECT_TRUE(stopped.ok()) << stopped;
}

}  // namespace
}  // namespace pkv
