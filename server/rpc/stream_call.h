// GenerateStream: one start, progress, deltas, exactly one end.
#pragma once

#include <grpcpp/grpcpp.h>

#include <memory>

#include "server/api/generation_call.h"
#include "server/rpc/reply_watch.h"

namespace pkv {

// Has the request made by `read` out of `bytes` and streams its answer. The returned reactor deletes itself.
grpc::ServerWriteReactor<grpc::ByteBuffer>* start_stream_call(ServerState& state, std::shared_ptr<ReplyWatch> watch,
                                                              CallInfo info, grpc::CallbackServerContext& context,
                                                              uint64_t bytes, GenerationCall::Reader read);

}  // namespace pkv
