// StatsService: the engine's latest snapshot as a message, once or again and again. Takes no lock of the engine's
// thread.
#pragma once

#include <grpcpp/grpcpp.h>

#include <memory>

#include "pyramidkv/v1/stats.grpc.pb.h"
#include "server/api/server_state.h"
#include "server/rpc/reply_watch.h"
#include "server/rpc/stats_watch.h"

namespace pkv {

// Messages are raw: unknown fields are refused, and one reply of WatchStats serves many streams.
using RawStatsService = pyramidkv::v1::StatsService::WithRawCallbackMethod_GetStats<
    pyramidkv::v1::StatsService::WithRawCallbackMethod_WatchStats<pyramidkv::v1::StatsService::Service>>;

class StatsService final : public RawStatsService {
 public:
  StatsService(ServerState& state, const std::shared_ptr<ReplyWatch>& replies)
      : state_(state), replies_(replies), watch_(state, replies) {}

  grpc::ServerUnaryReactor* GetStats(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                     grpc::ByteBuffer* response) override;
  grpc::ServerWriteReactor<grpc::ByteBuffer>* WatchStats(grpc::CallbackServerContext* context,
                                                         const grpc::ByteBuffer* request) override;
  // Ends the streams of WatchStats; the server is about to stop.
  void close_watches() { watch_.close(); }

 private:
  ServerState& state_;
  const std::shared_ptr<ReplyWatch> replies_;
  StatsWatch watch_;
};

// The whole state at this moment. Without a model: everything of it is zero.
void set_stats(ServerState& state, bool include_requests, pyramidkv::v1::Stats& out);

}  // namespace pkv
