// Generate: everything in one reply.
#pragma once

#include <grpcpp/grpcpp.h>

#include "server/rpc/generation_call.h"

namespace pkv {

// Submits `valid` and answers into `response` when it is done. The returned reactor deletes itself.
grpc::ServerUnaryReactor* start_unary_call(const ServedModel& served, ServerState& state, ValidRequest valid,
                                           grpc::CallbackServerContext& context, grpc::ByteBuffer& response);

// Adds what a refused caller may read beside the status: when to come back.
void add_retry_trailer(const absl::Status& status, grpc::CallbackServerContext& context);

}  // namespace pkv
