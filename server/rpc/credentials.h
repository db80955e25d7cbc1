// What the gRPC port speaks: plain text, TLS, or TLS with clients that show certificates.
#pragma once

#include <grpcpp/grpcpp.h>

#include <memory>

#include "server/api/tls_files.h"

namespace pkv {

// For one port, whose connections one thread hands to gRPC. Each gets the certificates that are in force then. `files`:
// null for plain text.
std::shared_ptr<grpc::ServerCredentials> server_credentials(std::shared_ptr<const TlsFiles> files);

}  // namespace pkv
