// ModelService: what is served, and which cache policies it can be asked for.
#pragma once

#include <grpcpp/grpcpp.h>

#include <memory>
#include <utility>

#include "pyramidkv/v1/model.grpc.pb.h"
#include "server/api/server_state.h"
#include "server/rpc/reply_watch.h"

namespace pkv {

class ModelService final : public pyramidkv::v1::ModelService::CallbackService {
 public:
  ModelService(const ServerState& state, std::shared_ptr<ReplyWatch> watch) : state_(state), watch_(std::move(watch)) {}

  // No model while it is being loaded.
  grpc::ServerUnaryReactor* ListModels(grpc::CallbackServerContext* context,
                                       const pyramidkv::v1::ListModelsRequest* request,
                                       pyramidkv::v1::ListModelsResponse* response) override;
  // Only policies that are built.
  grpc::ServerUnaryReactor* ListCachePolicies(grpc::CallbackServerContext* context,
                                              const pyramidkv::v1::ListCachePoliciesRequest* request,
                                              pyramidkv::v1::ListCachePoliciesResponse* response) override;

 private:
  const ServerState& state_;
  const std::shared_ptr<ReplyWatch> watch_;
};

}  // namespace pkv
