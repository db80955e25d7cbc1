// Who watches the statistics waits for nobody else.
#include "server/rpc/stats_watch.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <future>
#include <new>
#include <thread>

#include "pyramidkv/v1/stats.pb.h"
#include "server/rpc/wire.h"
#include "tests/unit/api/api_fixture.h"

namespace pkv {
namespace {

using Context = grpc::CallbackServerContext;

class StatsWatchTest : public ApiTest {
 protected:
  void set_unread_seconds(double seconds) { state_->set_limits({.max_unread_seconds = seconds, .max_watchers = 1}); }
};

// The reactors are bound to no call of gRPC's. What a stream sends at its end has to wait here for ReplyWatch, which is
// held up.
TEST_F(StatsWatchTest, NobodyWaitsForTheEndOfAnother) {
  pyramidkv::v1::WatchStatsRequest hourly;  // nothing is written but the first message
  hourly.mutable_interval()->set_seconds(3600);
  const grpc::ByteBuffer request = serialize_message(hourly);
  set_unread_seconds(60);
  const auto replies = std::make_shared<ReplyWatch>(*state_);
  StatsWatch watch(*state_, replies);
  Context context, late;
  StatsWatch::Reactor* stream = watch.start(request, context);
  stream->OnWriteDone(true);
  std::atomic<bool> held = false, released = false, ending = false;
  set_unread_seconds(0.001);
  replies->begin(late, [&] {
    held = true;
    held.notify_all();
    released.wait(false);
    throw std::bad_alloc();  // there is no call that could be cancelled
  });
  held.wait(false);
  set_unread_seconds(60);

  std::jthread end([&] {
    ending = true;
    ending.notify_all();
    stream->OnCancel();
  });
  ending.wait(false);
  const auto others = std::async(std::launch::async, [&] {
    for (int i = 0; i < 1000; ++i) {
      Context other;
      watch.start(request, other)->OnDone();  // refused: there is one already
    }
  });
  EXPECT_EQ(others.wait_for(std::chrono::minutes(1)), std::future_status::ready);
  released = true;
  released.notify_all();
  end.join();
  others.wait();
  replies->end(late);
  stream->OnDone();
}

}  // namespace
}  // namespace pkv
