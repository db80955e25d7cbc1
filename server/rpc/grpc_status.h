// Errors (server/api/errors.h) on gRPC's wire.
#pragma once

#include <grpcpp/grpcpp.h>

#include "absl/status/status.h"

namespace pkv {

// Same code and message; the field and the payloads that clients know become the details of a google.rpc.Status.
grpc::Status to_grpc_status(const absl::Status& status);
// Beside the status, where it says when to come back: what gRPC's own retries read.
void add_retry_trailer(const absl::Status& status, grpc::CallbackServerContext& context);

}  // namespace pkv
