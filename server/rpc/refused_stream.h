// A stream of the server's that only has a status.
#pragma once

#include <grpcpp/grpcpp.h>

namespace pkv {

// The reactor deletes itself.
grpc::ServerWriteReactor<grpc::ByteBuffer>* refuse_stream(const grpc::Status& status);

}  // namespace pkv
