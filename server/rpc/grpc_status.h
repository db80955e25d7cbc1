// Errors (server/api/errors.h) on gRPC's wire.
#pragma once

#include <grpcpp/support/status.h>

#include "absl/status/status.h"

namespace pkv {

// Same code and message; the field and the payloads that clients know become the details of a google.rpc.Status.
grpc::Status to_grpc_status(const absl::Status& status);

}  // namespace pkv
