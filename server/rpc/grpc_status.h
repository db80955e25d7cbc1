// Errors (server/api/errors.h) on gRPC's wire.
#pragma once

#include <grpcpp/grpcpp.h>

#include "absl/status/status.h"

namespace pkv {

// Same code and message; the field and the payloads that clients know become the details of a google.rpc.Status.
grpc::Status to_grpc_status(const absl::Status& status);
// The same for the call of `context`, which gets besides, where the status says when to come back, the trailer that
// gRPC's own retries read. Once a call, and last of what may need memory. std::bad_alloc: nothing has changed.
grpc::Status end_status(const absl::Status& status, grpc::CallbackServerContext& context);

}  // namespace pkv
