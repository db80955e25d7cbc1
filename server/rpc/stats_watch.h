// WatchStats: the streams that get the server's state, at once and then at their intervals. One thread serves all of
// them: it reads the state once a tick, however many watch, and passes over who has not taken the last message yet.
#pragma once

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "server/api/server_state.h"
#include "server/rpc/reply_watch.h"

namespace pkv {

class StatsWatch {
 public:
  using Reactor = grpc::ServerWriteReactor<grpc::ByteBuffer>;

  StatsWatch(ServerState& state, std::shared_ptr<ReplyWatch> replies);
  // Every stream must have ended.
  ~StatsWatch();

  // Starts the stream that a WatchStatsRequest asks for, or refuses it. The reactor deletes itself.
  Reactor* start(const grpc::ByteBuffer& request, grpc::CallbackServerContext& context);
  // Ends every stream with UNAVAILABLE, cancels those that wait for their reader, and takes no new ones.
  void close();

 private:
  using Clock = std::chrono::steady_clock;
  class Watcher;

  void run();
  void tick(std::unique_lock<std::mutex>& lock);
  std::optional<Clock::time_point> next_tick() const;
  absl::Status add(Watcher& watcher);
  void remove(Watcher& watcher);

  ServerState& state_;
  const std::shared_ptr<ReplyWatch> replies_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Watcher*> watchers_;  // until their OnDone
  Clock::time_point last_tick_;
  bool closed_ = false;
  std::thread thread_;
};

}  // namespace pkv
