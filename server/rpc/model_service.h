// ModelService: what is served, and which cache policies it can be asked for.
#pragma once

#include <grpcpp/grpcpp.h>

#include "pyramidkv/v1/model.grpc.pb.h"
#include "server/api/server_state.h"

namespace pkv {

class ModelService final : public pyramidkv::v1::ModelService::CallbackService {
 public:
  explicit ModelService(const ServerState& state) : state_(state) {}

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
};

}  // namespace pkv
