// GenerateStream: one start, progress, deltas, exactly one end. One write is in flight at a time; what comes meanwhile
// is merged into the next message, so the engine never waits for a slow client.
#pragma once

#include <grpcpp/grpcpp.h>

#include "server/rpc/generation_call.h"

namespace pkv {

// Submits `valid` and streams its answer. The returned reactor deletes itself.
grpc::ServerWriteReactor<grpc::ByteBuffer>* start_stream_call(const ServedModel& served, ServerState& state,
                                                              ValidRequest valid, CallInfo info,
                                                              grpc::CallbackServerContext& context);

}  // namespace pkv
