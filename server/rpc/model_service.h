// ModelService: what is served, and which cache policies it can be asked for.
#pragma once

#include <grpcpp/grpcpp.h>

#include <memory>
#include <utility>

#include "pyramidkv/v1/model.grpc.pb.h"
#include "server/api/server_state.h"
#include "server/rpc/reply_watch.h"

namespace pkv {

using RawModelService = pyramidkv::v1::ModelService::WithRawCallbackMethod_ListModels<
    pyramidkv::v1::ModelService::WithRawCallbackMethod_ListCachePolicies<pyramidkv::v1::ModelService::Service>>;

class ModelService final : public RawModelService {
 public:
  ModelService(const ServerState& state, std::shared_ptr<ReplyWatch> watch) : state_(state), watch_(std::move(watch)) {}

  // No model while it is being loaded.
  grpc::ServerUnaryReactor* ListModels(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                       grpc::ByteBuffer* response) override;
  // Only policies that are built.
  grpc::ServerUnaryReactor* ListCachePolicies(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                              grpc::ByteBuffer* response) override;

 private:
  const ServerState& state_;
  const std::shared_ptr<ReplyWatch> watch_;
};

}  // namespace pkv
