// Generate and Compare: everything in one reply.
#pragma once

#include <grpcpp/grpcpp.h>

#include "server/rpc/generation_call.h"

namespace pkv {

// Submits `valid` and answers into `response` when it is done: with a GenerateResponse, or a CompareResponse where it
// is a comparison. The returned reactor deletes itself.
grpc::ServerUnaryReactor* start_unary_call(const ServedModel& served, ServerState& state, ValidRequest valid,
                                           CallInfo info, grpc::CallbackServerContext& context,
                                           grpc::ByteBuffer& response);

}  // namespace pkv
