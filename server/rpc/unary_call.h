// Generate and Compare: everything in one reply.
#pragma once

#include <grpcpp/grpcpp.h>

#include <memory>

#include "server/api/generation_call.h"
#include "server/rpc/reply_watch.h"

namespace pkv {

// Has the request made by `read` out of `bytes` and answers into `response`: with a GenerateResponse, or a
// CompareResponse where it is a comparison. The returned reactor deletes itself.
grpc::ServerUnaryReactor* start_unary_call(ServerState& state, std::shared_ptr<ReplyWatch> watch, CallInfo info,
                                           grpc::CallbackServerContext& context, grpc::ByteBuffer& response,
                                           uint64_t bytes, GenerationCall::Reader read);

}  // namespace pkv
