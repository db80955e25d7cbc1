// GenerationService: parses, validates, and hands over to a call (unary_call.h, stream_call.h). Runs on gRPC's threads
// and never waits for the engine.
#pragma once

#include <grpcpp/grpcpp.h>

#include <memory>
#include <utility>

#include "pyramidkv/v1/generation.grpc.pb.h"
#include "server/api/server_state.h"
#include "server/rpc/reply_watch.h"

namespace pkv {

// The methods whose requests hold text are raw, so that a text that is not UTF-8 gets an answer (wire.h).
using RawGenerationService = pyramidkv::v1::GenerationService::WithRawCallbackMethod_Generate<
    pyramidkv::v1::GenerationService::WithRawCallbackMethod_GenerateStream<
        pyramidkv::v1::GenerationService::WithRawCallbackMethod_Tokenize<
            pyramidkv::v1::GenerationService::WithRawCallbackMethod_Detokenize<
                pyramidkv::v1::GenerationService::WithRawCallbackMethod_EstimateCache<
                    pyramidkv::v1::GenerationService::WithRawCallbackMethod_Compare<
                        pyramidkv::v1::GenerationService::Service>>>>>>;

class GenerationService final : public RawGenerationService {
 public:
  GenerationService(ServerState& state, std::shared_ptr<ReplyWatch> watch) : state_(state), watch_(std::move(watch)) {}

  grpc::ServerUnaryReactor* Generate(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                     grpc::ByteBuffer* response) override;
  grpc::ServerWriteReactor<grpc::ByteBuffer>* GenerateStream(grpc::CallbackServerContext* context,
                                                             const grpc::ByteBuffer* request) override;
  grpc::ServerUnaryReactor* Tokenize(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                     grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* Detokenize(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                       grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* EstimateCache(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                          grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* Compare(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                    grpc::ByteBuffer* response) override;

 private:
  ServerState& state_;
  const std::shared_ptr<ReplyWatch> watch_;
};

}  // namespace pkv
