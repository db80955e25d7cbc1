// A stream of the server's that only has a status.
#pragma once

#include <grpcpp/grpcpp.h>

#include "absl/status/status.h"

namespace pkv {

// The reactor deletes itself.
grpc::ServerWriteReactor<grpc::ByteBuffer>* refuse_stream(const absl::Status& status,
                                                          grpc::CallbackServerContext& context);

}  // namespace pkv
