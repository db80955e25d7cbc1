// What the gRPC port speaks: plain text, TLS, or TLS with clients that show certificates.
#pragma once

#include <grpcpp/grpcpp.h>

#include <memory>

#include "server/config/config.h"

namespace pkv {

// The files must be good when the server starts (check_tls()). They are looked at every second, and connections made
// after a change get the new ones.
std::shared_ptr<grpc::ServerCredentials> server_credentials(const TlsConfig& tls);

}  // namespace pkv
