// Keeps the log lines of gRPC and protobuf off the terminal: what they say of a call reaches people through its error.
#pragma once

namespace pkv::client {

// Called once, before anything else. Who sets GRPC_VERBOSITY gets gRPC's lines all the same.
void silence_libraries();

}  // namespace pkv::client
