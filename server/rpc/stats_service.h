// StatsService: the engine's latest snapshot as a message. Takes no lock of the engine's thread.
#pragma once

#include <grpcpp/grpcpp.h>

#include "pyramidkv/v1/stats.grpc.pb.h"
#include "server/rpc/server_state.h"

namespace pkv {

class StatsService final : public pyramidkv::v1::StatsService::CallbackService {
 public:
  explicit StatsService(ServerState& state) : state_(state) {}

  grpc::ServerUnaryReactor* GetStats(grpc::CallbackServerContext* context,
                                     const pyramidkv::v1::GetStatsRequest* request,
                                     pyramidkv::v1::GetStatsResponse* response) override;
  grpc::ServerWriteReactor<pyramidkv::v1::WatchStatsResponse>* WatchStats(
      grpc::CallbackServerContext* context, const pyramidkv::v1::WatchStatsRequest* request) override;

 private:
  ServerState& state_;
};

// The whole state at this moment. Without a model: everything of it is zero.
void set_stats(ServerState& state, bool include_requests, pyramidkv::v1::Stats& out);

}  // namespace pkv
